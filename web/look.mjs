// node look.mjs REPORT.html [FOLDER]: open a report in headless Chromium as a reader would, and
// print what was drawn as JSON: console errors, requests, points of each chart, times, whether
// hover, zoom, dark colours and a phone's width work. FOLDER: screenshots go there.
import { existsSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = process.env.CHROMIUM ?? PLACES.find((path) => existsSync(path));
if (!executablePath) {
  console.error("look.mjs: no Chromium: apt-get install chromium, or CHROMIUM=its path");
  process.exit(2);
}
const [file, folder] = process.argv.slice(2);
if (folder) mkdirSync(folder, { recursive: true });

const root = process.getuid?.() === 0;
const timeout = 600_000; // ms: a busy machine is slow
const args = root ? ["--no-sandbox"] : [];
const browser = await chromium.launch({ executablePath, args, timeout });
const found = { errors: [], requests: [] };

async function open(options) {
  const page = await browser.newPage(options);
  page.setDefaultTimeout(timeout);
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) found.errors.push(message.text());
  });
  page.on("pageerror", (error) => found.errors.push(String(error)));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith("file:")) found.requests.push(url);
  });
  await page.goto(pathToFileURL(resolve(file)).href);
  await page.waitForFunction(allDrawn); // without scrolling
  return page;
}

const allDrawn = () =>
  document.querySelectorAll("figure").length === Object.keys(window.reproReport.drawn).length;

async function shoot(page, name) {
  if (!folder) return;
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

const points = () => {
  const { drawn } = window.reproReport;
  const found = {};
  for (const [id, made] of Object.entries(drawn)) {
    if (id === "lanes") found[id] = { slices: made.count, painted: made.drawn, ms: made.ms };
    else {
      const { series } = made.chart.getOption();
      found[id] = { points: series.map((one) => [one.name, one.data.length]), ms: made.ms };
    }
  }
  return found;
};

const page = await open({ viewport: { width: 1200, height: 900 }, colorScheme: "light" });
found.charts = await page.evaluate(points);
found.colours = [await page.evaluate(() => getComputedStyle(document.body).backgroundColor)];
found.title = await page.title();
await shoot(page, "light");
if (folder) {
  for (const figure of await page.locator("figure").all()) {
    await figure.screenshot({ path: join(folder, `${await figure.getAttribute("id")}.png`) });
  }
}

// hover and zoom in the swim lanes, with the mouse and by keyboard
if (await page.locator("#lanes canvas").count()) {
  const canvas = page.locator("#lanes canvas");
  await canvas.scrollIntoViewIfNeeded();
  const target = await page.evaluate(() => {
    const { lanes } = window.reproReport.drawn;
    const lane = lanes.lanes.find((each) => each.slices.length);
    const [, start, end] = lane.slices[Math.floor(lane.slices.length / 2)];
    return { x: lanes.x((start + end) / 2), y: lane.y + 8 };
  });
  await canvas.hover({ position: target });
  found.hover = await page.locator("#lanes .tip").innerText();
  const length = () => page.evaluate(() => window.reproReport.drawn.lanes.length);
  const whole = await length();
  await page.keyboard.down("Control");
  await page.mouse.wheel(0, -200);
  await page.keyboard.up("Control");
  await page.waitForFunction((before) => window.reproReport.drawn.lanes.length < before, whole);
  const wheeled = await length();
  await canvas.focus();
  await page.keyboard.press("+");
  await page.keyboard.press("+");
  found.zoom = { whole, wheeled, pressed: await length() };
  found.zoom_ms = await page.evaluate(() => window.reproReport.drawn.lanes.ms);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press(".");
  found.said = await page.locator("#lanes .said").innerText();
  if (folder) await page.locator("#lanes").screenshot({ path: join(folder, "zoomed.png") });
}
// a tooltip of ECharts, where there is a chart of launches
if (await page.locator("#launches canvas").count()) {
  const box = page.locator("#launches .plot");
  await box.scrollIntoViewIfNeeded();
  const at = await page.evaluate(() => {
    const { chart } = window.reproReport.drawn.launches;
    const [x, y] = chart.convertToPixel("grid", chart.getOption().series[0].data[0].value);
    return { x, y };
  });
  await box.hover({ position: at });
  found.tooltip = await box.locator(".note").innerText();
}
// and one of a distribution
if (await page.locator("#itl-ecdf canvas").count()) {
  const box = page.locator("#itl-ecdf .plot");
  await box.scrollIntoViewIfNeeded();
  const at = await page.evaluate(() => {
    const { chart } = window.reproReport.drawn["itl-ecdf"];
    const { data } = chart.getOption().series[0];
    const [x, y] = chart.convertToPixel("grid", data[Math.floor(data.length / 2)]);
    return { x, y };
  });
  await box.hover({ position: at });
  found.share = await box.locator(".note").innerText();
}
await page.close();

const dark = await open({ viewport: { width: 1200, height: 900 }, colorScheme: "dark" });
found.colours.push(await dark.evaluate(() => getComputedStyle(document.body).backgroundColor));
await shoot(dark, "dark");
await dark.locator("#theme").click();
found.colours.push(await dark.evaluate(() => getComputedStyle(document.body).backgroundColor));
await dark.close();

const phone = await open({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
found.phone_width = await phone.evaluate(() => document.documentElement.scrollWidth);
await phone.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
// what goes on beyond the screen: of each whether a shade says so
found.phone_scrolls = await phone.evaluate(() =>
  [...document.querySelectorAll("main *")]
    .map((one) => [one, getComputedStyle(one)])
    .filter(([one, style]) => style.overflowX === "auto" && one.scrollWidth > one.clientWidth)
    .map(([one, style]) => [one.tagName, style.backgroundImage.includes("gradient")]),
);
await shoot(phone, "phone");
await phone.close();

// where drawing takes long and the browser has no idle moment: a print has all pictures yet
const slow = await browser.newPage({ viewport: { width: 1200, height: 900 } });
slow.setDefaultTimeout(timeout);
await slow.addInitScript(() => {
  let now = 0;
  performance.now = () => (now += 400);
  window.requestIdleCallback = () => 0;
});
await slow.goto(pathToFileURL(resolve(file)).href);
const drawn = () => slow.evaluate(() => Object.keys(window.reproReport.drawn).length);
found.slow = { begun: await drawn() };
await slow.pdf(folder ? { path: join(folder, "print.pdf") } : {});
found.slow.printed = await drawn();
await slow.close();

await browser.close();
console.log(JSON.stringify(found));
