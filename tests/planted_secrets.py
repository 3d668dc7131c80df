"""Made-up secrets of every kind that must not come out, none of which a file scanner knows."""

from __future__ import annotations

import base64
from urllib.parse import quote

WORD = "correct-horse-battery"  # has no shape: only what stands around it tells
TAIL = "q7xw3kd9lm2pv8rt5"  # what follows a vendor's prefix: too short and plain to stand out


def long_word(kind: str, length: int = 36) -> str:
    """A random word, different for every kind."""
    return (kind + "Zq7Xw3Kd9Lm2Pv8Rt5Yb1Nc4Hs6Jf0Gu" * 3)[:length]


# fmt: off
PREFIXES = {
    "hugging face": "hf_", "hugging face organisation": "api_org_", "openai": "sk-",
    "openai project": "sk-proj-", "openai service": "sk-svcacct-", "anthropic": "sk-ant-",
    "openrouter": "sk-or-v1-", "github": "ghp_", "github server": "ghs_", "github user": "ghu_",
    "github oauth": "gho_", "github refresh": "ghr_", "github fine": "github_pat_",
    "gitlab": "glpat-", "gitlab runner": "glrt-", "gitlab deploy": "gldt-", "slack bot": "xoxb-",
    "slack user": "xoxp-", "slack app": "xapp-", "slack rotated": "xoxe.xoxp-",
    "aws id": "AKIA", "aws session id": "ASIA", "google": "AIza", "google oauth": "ya29.",
    "google refresh": "1//0", "google client": "GOCSPX-", "azure ad": "abc8Q~",
    "stripe": "sk_live_", "stripe restricted": "rk_test_", "npm": "npm_", "pypi": "pypi-",
    "nvidia": "nvapi-", "groq": "gsk_", "xai": "xai-", "replicate": "r8_", "vault": "hvs.",
    "docker": "dckr_pat_", "digital ocean": "dop_v1_", "sendgrid": "SG.", "wandb": "wandb_v1_",
    "databricks": "dapi", "grafana": "glsa_", "sentry": "sntrys_", "runpod": "rpa_",
    "tavily": "tvly-", "perplexity": "pplx-", "shopify": "shpat_", "supabase": "sbp_",
    "figma": "figd_", "linear": "lin_api_", "new relic": "NRAK-", "postman": "PMAK-",
    "atlassian": "ATATT3", "age": "AGE-SECRET-KEY-", "telegram": "123456789:AA",
    "webhook": "whsec_",
}
AROUND = {
    "url user and password": "http://bob:{}@proxy:3128",
    "url password with at": "http://bob:x@{}@proxy:3128",
    "url password with slash": "http://bob:x/{}@proxy:3128",
    "url token": "https://{}@host/x",
    "redis": "redis://:{}@cache:6379/0",
    "git remote, gitlab": "origin https://oauth2:{}@gitlab.example/x.git (fetch)",
    "git remote, github": "origin https://x-access-token:{}@github.com/x/y.git (push)",
    "url query": "https://h/x?model=m&access_token={}",
    "signed url": "https://h/x?X-Amz-Signature={}&y=1",
    "azure shared access": "https://a.blob.core.windows.net/c?sv=2024&sp=r&sig={}",
    "url encoded pair": "GET /x?q=api_key%3D{}",
    "url encoded json": "GET /x?q=%7B%22api_key%22%3A%22{}%22%7D",
    "url in a url": "GET /x?next=https%3A%2F%2Fbob%3A{}%40host",
    "url encoded header": "h=Authorization%3A%20Bearer%20{}",
    "slack hook": "https://hooks.slack.com/services/T0/B0/{}",
    "slack workflow": "https://hooks.slack.com/workflows/T0/{}",
    "discord hook": "https://discord.com/api/webhooks/1/{}",
    "teams hook": "https://x.webhook.office.com/webhookb2/{}",
    "bearer": "Authorization: Bearer {}",
    "bearer alone": "bearer {}",
    "bearer in a curl": "curl -H 'Authorization: Bearer {}' http://h",
    "authorization": "authorization: custom a, b {}",
    "proxy authorization": "Proxy-Authorization: Basic {}",
    "cookie": "Cookie: a=b; c={}",
    "set-cookie": "Set-Cookie: id={}; Path=/",
    "x-api-key": "X-Api-Key: {}",
    "headers as tuples": "[(b'host', b'h'), (b'x-api-key', b'{}')]",
    "option": "--api-key {} --tp 4",
    "option equals": "--admin-api-key={}",
    "option quoted": "--password 'x y {}'",
    "options as a list": "['python', '--api-key', '{}', '--tp', '4']",
    "options as json": '["--hf-token", "a b {}", "--tp", "4"]',
    "options as json over lines": '[\n "--api-key",\n "{}"\n]',
    "server arguments": "server_args=ServerArgs(tp_size=1, api_key='{}', admin_api_key=None)",
    "bytes": "api_key=b'x y {}'",
    "process list": "bob 1 0.0 python -m sglang.launch_server --api-key={} --tp 4",
    "variable of a command": "HF_TOKEN={} python serve.py",
    "exported": 'export OPENAI_API_KEY="{}"',
    "curl user": "curl -u bob:{} http://h",
    "sshpass": "sshpass -p {} ssh host",
    "mysql": "mysql --user=bob --password={} db",
    "json": '{{"api_key": "{}"}}',
    "json, tight": '{{"a":1,"api_key":"{}","b":2}}',
    "json escaped": '{{\\"hf_token\\": \\"{}\\"}}',
    "json with a quote inside": '{{"password": "a\\"b {}"}}',
    "python dict": "{{'secret': '{}'}}",
    "docker config": '{{"auths": {{"registry": {{"auth": "{}"}}}}}}',
    "service account": '{{"private_key_id": "{}", "type": "service_account"}}',
    "kubernetes": "client-key-data: {}",
    "npmrc": "//registry.example/:_authToken={}",
    "pypirc": "password = {}",
    "netrc": "machine h login bob password {}",
    "yaml over lines": "password:\n  {}",
    "camel case": "clientSecret={}",
    "aws secret": "aws_secret_access_key = {}",
    "passphrase": "passphrase: {}",
    "azure storage": "DefaultEndpointsProtocol=https;AccountKey={}",
    "azure bus": "Endpoint=sb://h/;SharedAccessKeyName=n;SharedAccessKey={}",
    "connection string": "connection_string={}",
}
NAMED = [
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SGLANG_API_KEY", "VLLM_API_KEY", "NCCL_PASSWORD",
    "TORCH_SECRET", "RAY_AUTH", "SLURM_JWT", "CONDA_PASS", "MASTER_CREDENTIALS", "SGLANG_PWD",
    "HF_SIGNING_KEY", "MC_DSN", "UCX_COOKIE", "HF_OTP", "SGL_ACCESS_KEY",
]
# fmt: on


def secrets() -> dict[str, tuple[str, str]]:
    """kind -> (text as it would be found, the part that must not be printed)."""
    found = {}
    for number, (kind, prefix) in enumerate(PREFIXES.items()):
        found[kind] = (f"run {prefix}{TAIL}{number:02}", f"{TAIL}{number:02}")
    for number, (kind, text) in enumerate(AROUND.items()):
        found[kind] = (text.format(f"{WORD}-{number:02}"), f"{WORD}-{number:02}")
    jwt = f"eyJ{long_word('h', 20)}.eyJ{long_word('p', 20)}.{long_word('s', 30)}"
    body = "MIIabc\nxyz/123"
    rsa = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    pgp = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{body}\n-----END PGP PRIVATE KEY BLOCK-----"
    in_json = f'{{"private_key": "{rsa}"}}'.replace("\n", "\\n")
    basic = base64.b64encode(b"bob:" + WORD.encode()).decode()
    discord = f"M{long_word('d', 23)}.G-x_yz.{'-a_'.join(['abcdefg'] * 3)}"
    return found | {
        "jwt": (f"x {jwt}", long_word("s", 30)),
        "basic": (f"Basic {basic}", basic),
        "bare key": (f"x {long_word('Q')}", long_word("Q")),
        "bare key with slashes": ("x aQ7xW3kd/9+Lm2Pv8Rt5/Yb1Nc4Hs6JfZ0GuT/q8w", "9+Lm2Pv8Rt5"),
        "discord bot": (f"x {discord}", "abcdefg-a_"),
        "private key": (rsa, "MIIabc"),
        "private key, last line": (rsa, "xyz/123"),
        "private key in json": (in_json, "xyz/123"),
        "private key of pgp": (pgp, "xyz/123"),
        "percent encoded": (f"token={quote('a b/' + WORD)}", WORD),
        "uuid": ("GPU-1a2b3c4d-1111-2222-3333-123456789abc", "1111-2222-3333-123456789abc"),
        "serial": ("serial: 1650522002233", "1650522002233"),
    }


SECRETS = secrets()
