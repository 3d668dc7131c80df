// The pictures of report.html. The page holds its facts as JSON in #facts; every picture has a
// table of the same numbers beside it, so that nothing is lost where scripts do not run.
import { drawCharts } from "./charts.js";
import { drawLanes } from "./lanes.js";
import { themeButton } from "./theme.js";

const facts = JSON.parse(document.getElementById("facts").textContent);
const drawn = {}; // by the id of the figure: what the tests look at
window.reproReport = { facts, drawn };

document.documentElement.classList.add("scripted");
themeButton(document.getElementById("theme"));
drawCharts(facts, drawn);
drawLanes(facts, drawn);
