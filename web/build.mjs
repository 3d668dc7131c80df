// node build.mjs [FOLDER]: bundle src/ into the script and the style sheet of report.html, with the
// licences of what is bundled. FOLDER: repro_pp_graphs/report/assets unless named.
import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../repro_pp_graphs/report/assets"));
await mkdir(out, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: ["src/report.js", "src/report.css"],
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  charset: "ascii",
  legalComments: "none", // they are in LICENSES.txt, whole
});

const packages = [
  ["Apache ECharts", "echarts", ["LICENSE", "NOTICE", "licenses/LICENSE-d3"]],
  ["zrender", "zrender", ["LICENSE"]],
  ["tslib", "tslib", ["LICENSE.txt"]],
];
const parts = ["report.js holds these libraries beside the code of this repository.\n"];
for (const [title, name, files] of packages) {
  const folder = join(here, "node_modules", name);
  const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  for (const file of files) {
    const text = (await readFile(join(folder, file), "utf8")).replaceAll("\r\n", "\n").trim();
    parts.push(`==== ${title} ${version}: ${file}\n\n${text}\n`);
  }
}
await writeFile(join(out, "LICENSES.txt"), parts.join("\n"));
