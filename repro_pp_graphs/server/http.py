"""The server's HTTP interface, as releases 0.5.2 to 0.5.23 have it."""

from __future__ import annotations

from typing import Any

import requests

from repro_pp_graphs.client.key import KEYS, authorization
from repro_pp_graphs.environment import masking
from repro_pp_graphs.server.machine import listener
from repro_pp_graphs.server.release.release_facts import MICRO_BATCH

INFO = ("/server_info", "/get_server_info")  # the second up to 0.5.4, and as an alias since
PROFILE_KEYS = ("SGLANG_ADMIN_API_KEY", *KEYS)  # where --admin-api-key is set it wants that one
MOST_LEVELS = 50  # of nested JSON
_DROPPED = ("internal_states", "api_key", "admin_api_key", "ssl_keyfile_password")


def resolved(info: dict[str, Any]) -> dict[str, Any]:
    """A server's own account of its arguments, without what is a secret or a crowd."""
    kept = {key: value for key, value in info.items() if key not in _DROPPED}
    masker = masking.of_this_process(people=False)
    masker.learn_from_json([info])
    return {key: masker.json(value, key) for key, value in kept.items()}


def object_in(answer: requests.Response) -> dict[str, Any] | None:
    """The JSON object that a server answered; None where it is none, or nested as no server's is:
    what is made of it goes down its levels one call a level."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return None
    left = [(found, 1)]
    while left:
        value, level = left.pop()
        if level > MOST_LEVELS:
            return None
        if isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            left += [(each, level + 1) for each in inner]
    return found if isinstance(found, dict) else None


def _is_whole(value: object) -> bool:
    return type(value) is int


class Server:
    """One sglang server at a base URL; every call has a time limit."""

    def __init__(self, base_url: str, local: bool = True) -> None:
        """`local`: on this machine, where no proxy of the environment stands in between."""
        self.base_url = base_url
        self._session = requests.Session()
        self._session.trust_env = not local
        self._session.headers.update(authorization())

    def _first(self, paths: tuple[str, ...], timeout_s: float) -> dict[str, Any]:
        """The JSON of the first of `paths` that answers 200; empty where none does."""
        for path in paths:
            try:
                answer = self._session.get(self.base_url + path, timeout=timeout_s)
            except requests.RequestException:
                continue
            if answer.ok and (found := object_in(answer)) is not None:
                return found
        return {}

    def get(self, path: str, timeout_s: float = 20.0) -> requests.Response:
        """The answer to a GET. Raises requests.RequestException without one."""
        return self._session.get(self.base_url + path, timeout=timeout_s, allow_redirects=False)

    def listens(self) -> bool:
        """Does anything accept connections there?"""
        return listener.accepts(self.base_url)

    def healthy(self, timeout_s: float = 8.0) -> bool:
        """Does /health answer 200? It runs a generation, so it takes a second."""
        try:
            return self._session.get(self.base_url + "/health", timeout=timeout_s).ok
        except requests.RequestException:
            return False

    def model(self) -> str:
        """The model that the server names; empty where it names none."""
        return str(self._first(("/model_info", "/get_model_info"), 8.0).get("model_path", ""))

    def info(self) -> dict[str, Any]:
        """The arguments that the server resolved, and its state; empty where it says nothing."""
        return self._first(INFO, 20.0)

    def start_profile(
        self, output_dir: str, num_steps: int, with_stack: bool, profile_id: str
    ) -> str:
        """Ask every rank to profile its next `num_steps` forward steps into `output_dir` (empty:
        the server's own folder); returns the answer.

        The files' names begin with `profile_id`, or with the time of the request in releases that
        let the server choose (0.5.2 to 0.5.10; 0.5.16 and 0.5.21 take it). Raises
        requests.RequestException where the server refuses.
        """
        body: dict[str, Any] = {
            "num_steps": num_steps,
            "activities": ["CPU", "GPU"],
            "with_stack": with_stack,
            "profile_id": profile_id,
        }
        if output_dir:
            body["output_dir"] = output_dir
        url, headers = f"{self.base_url}/start_profile", authorization(PROFILE_KEYS)
        answer = self._session.post(url, json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.text.strip()

    def set_micro_batch(self, size: int) -> str:
        """Tell every rank the most requests in a micro-batch from now on; why it did not take it,
        or an empty text. 0.5.2 to 0.5.23 take from 1 to --max-running-requests / PP ranks.

        What a release calls it, and whether it has taken it, the server's own state tells (of PP0,
        which every rank follows): the answer is [true] up to 0.5.14 even to a refusal.
        """
        name = next(iter(self._micro_batches()), "")
        if not name:
            return "the server does not say its own (/server_info): its release may have none"
        url, headers = f"{self.base_url}/set_internal_state", authorization(PROFILE_KEYS)
        try:
            body = {"server_args": {name: size}}
            answer = self._session.post(url, json=body, headers=headers, timeout=60)
        except requests.RequestException as error:
            return f"/set_internal_state failed ({error})"
        now = self._micro_batches().get(name)
        if now == {size}:
            return ""
        has = ", ".join(map(str, sorted(now))) if now else "not known"
        return (
            f"the server did not take it: its {name} is {has} (/set_internal_state answered "
            f"{answer.status_code}: {answer.text.strip()[:60]}); it takes 1 to "
            "--max-running-requests / PP ranks, and its log says why after `Updating`"
        )

    def _micro_batches(self) -> dict[str, set[int]]:
        """The most requests in a micro-batch as the schedulers have it now, by its name in the
        release; one value, but where data-parallel schedulers differ. Empty: they do not say."""
        states = self.info().get("internal_states")
        if not isinstance(states, list) or not all(isinstance(each, dict) for each in states):
            return {}
        found = {name: {each.get(name) for each in states} for name in MICRO_BATCH}
        whole = (name for name, all_ in found.items() if all_ and all(map(_is_whole, all_)))
        return {name: found[name] for name in whole}

    def stop_profile(self, timeout_s: float = 120) -> bool:
        """Ask the ranks to write what they have; False where no profile was running."""
        url, headers = f"{self.base_url}/stop_profile", authorization(PROFILE_KEYS)
        try:
            return self._session.post(url, headers=headers, timeout=timeout_s).ok
        except requests.RequestException:
            return False
