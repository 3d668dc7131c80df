// The charts that ECharts draws: distributions, ITL over time, launches, the parts of a turn.
import { BarChart, LineChart, ScatterChart } from "echarts/charts";
import {
  DataZoomComponent,
  GridComponent,
  MarkLineComponent,
  TooltipComponent,
} from "echarts/components";
import * as echarts from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";
import { element, note, number, soon } from "./dom.js";
import { caseColour, colour, onTheme } from "./theme.js";

echarts.use([
  BarChart,
  LineChart,
  ScatterChart,
  DataZoomComponent,
  GridComponent,
  MarkLineComponent,
  TooltipComponent,
  CanvasRenderer,
]);

const DASHES = ["solid", "dashed", "dotted", [8, 3, 2, 3], [2, 6], [12, 4]];

/** Draw every chart that the page has a figure for, and keep each under its figure's id. */
export function drawCharts(facts, drawn) {
  const { charts, cases } = facts;
  place("itl-ecdf", charts.itl_ecdf, (shown) => distribution(charts.itl_ecdf, shown));
  place("send-ecdf", charts.send_ecdf, (shown) => distribution(charts.send_ecdf, shown));
  place("itl-time", charts.itl_time, (shown) => overTime(charts.itl_time, shown));
  place("loads", charts.loads, (shown, choice) => loads(charts.loads, shown, choice));
  place("launches", charts.launches, (shown, choice) => launches(charts.launches, shown, choice));
  place("path", charts.path, (_, choice) => bars(charts.path, choice, "ms of a decode step (mean)"));
  place("difference", charts.difference, (_, choice) => waterfall(charts.difference, choice));
  place("turns", charts.turns, (_, choice) => bars(charts.turns, choice, "ms of a turn (mean)"));

  function place(id, data, options) {
    const figure = document.getElementById(id);
    if (!figure || !data) return;
    const shown = new Set(cases.keys());
    const box = figure.querySelector(".plot");
    const choose = data.choose && choiceOf(data, figure);
    const legend = data.bars ? keyOf(figure) : casesOf(figure, cases, data, shown, redraw);
    let chart = null;
    function redraw() {
      if (!chart) return;
      const began = performance.now();
      const made = options(shown, choose ? choose.value : null);
      legend(made);
      chart.setOption({ ...base(), ...made.option }, { notMerge: true });
      chart.getZr().flush(); // now, not in the next frame: a print or a screenshot may come first
      drawn[id].ms = performance.now() - began;
    }
    if (choose) choose.addEventListener("change", redraw);
    soon(figure, () => {
      if (data.height) box.style.height = `${data.height}px`;
      chart = echarts.init(box, null, { renderer: "canvas" });
      drawn[id] = { chart, ms: 0 };
      redraw();
      new ResizeObserver(() => chart.resize()).observe(box);
      onTheme(redraw);
    });
  }
}

function base() {
  return {
    animation: false,
    textStyle: { fontFamily: "inherit", color: colour("--text") },
    grid: { left: 12, right: 16, top: 30, bottom: 44, containLabel: true },
  };
}

function axis(name, more = {}) {
  return {
    name,
    nameLocation: "end",
    nameTextStyle: { color: colour("--quiet") },
    axisLabel: { color: colour("--quiet"), hideOverlap: true },
    axisLine: { show: true, lineStyle: { color: colour("--line") } },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: colour("--line"), opacity: 0.6 } },
    ...more,
  };
}

/** The name of the horizontal axis stands in the middle below it, where there is room for it. */
function below(name, more = {}) {
  return axis(name, { nameLocation: "middle", nameGap: 26, ...more });
}

function tooltip(formatter) {
  return {
    trigger: "item",
    confine: true,
    backgroundColor: colour("--raised"),
    borderColor: colour("--line"),
    textStyle: { color: colour("--text") },
    padding: 0,
    formatter,
  };
}

/** Zoom along x: pinch, Ctrl and the wheel (the wheel alone scrolls the page), and a slider. */
function zoom(range = {}) {
  return [
    { ...range, type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseMove: true, filterMode: "none" },
    {
      ...range,
      type: "slider",
      height: 14,
      bottom: 2,
      filterMode: "none",
      showDetail: false,
      brushSelect: false,
      showDataShadow: false,
      borderColor: colour("--line"),
      fillerColor: colour("--veil"),
      handleStyle: { color: colour("--quiet"), borderColor: colour("--quiet") },
      moveHandleStyle: { color: colour("--quiet"), opacity: 0.5 },
    },
  ];
}

function line(one, more) {
  return {
    type: "line",
    name: one.name,
    data: one.points,
    showSymbol: false,
    symbolSize: 5,
    lineStyle: {
      color: caseColour(one.case),
      width: 1.6,
      type: DASHES[(one.round - 1) % DASHES.length],
    },
    itemStyle: { color: caseColour(one.case) },
    emphasis: { focus: "series", lineStyle: { width: 3 } },
    ...more,
  };
}

function distribution(data, shown) {
  const series = data.series.filter((one) => shown.has(one.case));
  const values = series.flatMap((one) => one.points.map(([value]) => value));
  const least = Math.min(...values);
  // the longest tenth of a hundred would squeeze the rest: the slider has it
  const usual = Math.max(...series.map((one) => one.points.find(([, share]) => share >= 0.99)[0]));
  const log = least > 0 && usual > 8 * least;
  const most = Math.max(...values);
  return {
    option: {
      xAxis: below(`${data.unit}${log ? ", logarithmic" : ""}`, {
        type: log ? "log" : "value",
        scale: true,
        min: log ? least * 0.95 : undefined,
        max: log ? most * 1.05 : undefined,
        axisLabel: { color: colour("--quiet"), hideOverlap: true, formatter: number },
      }),
      yAxis: axis("share below", { type: "value", min: 0, max: 1, nameGap: 12 }),
      dataZoom: zoom(most > 1.5 * usual ? { startValue: least * 0.98, endValue: usual * 1.05 } : {}),
      tooltip: tooltip((p) =>
        note(p.seriesName, [[`up to ${number(p.data[0])} ms`, `${(100 * p.data[1]).toFixed(1)} %`]]),
      ),
      // points to hover over, which are seen only then
      series: series.map((one) =>
        line(one, {
          step: "end",
          showSymbol: true,
          symbol: "circle",
          symbolSize: 6,
          itemStyle: { color: caseColour(one.case), opacity: 0 },
          emphasis: { focus: "series", itemStyle: { opacity: 1 }, lineStyle: { width: 3 } },
        }),
      ),
    },
  };
}

function overTime(data, shown) {
  const series = data.series.filter((one) => shown.has(one.case));
  return {
    option: {
      xAxis: below("s from the first prompt", { type: "value" }),
      yAxis: axis(data.unit, { type: "value", scale: true, nameGap: 12 }),
      dataZoom: zoom(),
      tooltip: tooltip((p) =>
        note(p.seriesName, [
          ["from", `${number(p.data[0])} s`],
          ["mean ITL", `${number(p.data[1])} ms`],
        ]),
      ),
      series: series.map((one) => line(one, { showSymbol: true, symbolSize: 4 })),
    },
  };
}

function launches(data, shown, choice) {
  const metric = data.choices.find((each) => each.key === choice) ?? data.choices[0];
  const points = metric.points.filter((point) => shown.has(point.case));
  const numbers = [...new Set(points.map((point) => point.case))];
  const series = numbers.map((number_) => ({
    type: "scatter",
    name: points.find((point) => point.case === number_).case_name,
    symbolSize: 10,
    itemStyle: { color: caseColour(number_) },
    data: points
      .filter((point) => point.case === number_)
      .map((point) => ({
        value: [point.order, point.value],
        name: point.name,
        itemStyle: point.marked
          ? { color: "transparent", borderColor: caseColour(number_), borderWidth: 2 }
          : undefined,
      })),
    markLine: {
      silent: true,
      symbol: "none",
      lineStyle: { color: caseColour(number_), type: "dashed", opacity: 0.8 },
      label: { show: false },
      data: metric.means.filter((m) => m.case === number_).map((m) => ({ yAxis: m.value })),
    },
  }));
  // the interval of the ratio, seen from the other case's mean, right of all launches
  const intervals = metric.intervals.filter((one) => shown.has(one.case));
  intervals.forEach((one, at) => {
    const x = data.launches + 1 + at;
    const [low, middle, high] = one.places;
    const item = { name: one.name, text: one.text };
    series.push({
      type: "line",
      name: one.name,
      data: [low, middle, high].map((value) => ({ ...item, value: [x, value] })),
      symbol: "rect",
      symbolSize: [14, 3],
      lineStyle: { color: caseColour(one.case), width: 2 },
      itemStyle: { color: caseColour(one.case) },
    });
  });
  return {
    option: {
      xAxis: below("launch, in the order in which they ran", {
        type: "value",
        min: 0,
        max: data.launches + 1 + intervals.length,
        interval: 1,
        minInterval: 1,
        axisLabel: {
          color: colour("--quiet"),
          hideOverlap: true,
          formatter: (value) => (value > 0 && value <= data.launches ? String(value) : ""),
        },
        splitLine: { show: false },
      }),
      yAxis: axis(`${metric.title} (${metric.better} is better)`, {
        type: "value",
        scale: true,
        nameTextStyle: { color: colour("--quiet"), align: "left" },
      }),
      tooltip: tooltip((p) =>
        p.data.text
          ? note(p.name, [["ratio", p.data.text]])
          : note(p.name, [[metric.title, number(p.data.value[1])]]),
      ),
      series,
    },
  };
}

function loads(data, shown, choice) {
  const metric = data.choices.find((each) => each.key === choice) ?? data.choices[0];
  const lines = metric.lines.filter((one) => shown.has(one.case));
  const points = metric.points.filter((one) => shown.has(one.case));
  const series = lines.map((one) => ({
    type: "line",
    name: one.name,
    data: one.points.map((value, at) => ({ value, wait: one.waits[at] })),
    showSymbol: true,
    symbol: "rect",
    symbolSize: [14, 3],
    lineStyle: { color: caseColour(one.case), width: 2, type: DASHES[one.dash % DASHES.length] },
    itemStyle: { color: caseColour(one.case) },
  }));
  series.push({
    type: "scatter",
    name: "launches",
    symbolSize: 7,
    data: points.map((one) => ({
      value: [one.at, one.value],
      name: one.name,
      itemStyle: { color: caseColour(one.case), opacity: 0.6 },
    })),
  });
  return {
    option: {
      xAxis: below("", {
        type: "category",
        data: data.along,
        axisLabel: { color: colour("--quiet"), hideOverlap: true },
      }),
      yAxis: axis(metric.title, {
        type: "value",
        min: 0,
        nameTextStyle: { color: colour("--quiet"), align: "left" },
      }),
      tooltip: tooltip((p) =>
        note(
          p.seriesType === "scatter" ? p.name : `${p.seriesName}, ${data.along[p.data.value[0]]}`,
          [
            [metric.title, number(p.data.value[1])],
            ...(p.data.wait ? [[metric.waits, p.data.wait]] : []),
          ],
        ),
      ),
      series,
    },
  };
}

function bars(data, choice, unit) {
  const view = data.choices.find((each) => each.key === choice) ?? data.choices[0];
  const series = view.parts.map((part) => ({
    type: "bar",
    stack: "turn",
    name: part.title,
    barMaxWidth: 22,
    itemStyle: { color: colour(`--${part.key}`), borderColor: colour("--paper"), borderWidth: 0.5 },
    emphasis: { focus: "series" },
    data: part.values.map((value, at) => ({ value, more: part.more?.[at] ?? [] })),
  }));
  return {
    parts: view.parts,
    option: {
      grid: { left: 8, right: 20, top: 8, bottom: 30, containLabel: true },
      xAxis: below(unit, { type: "value" }),
      yAxis: axis("", {
        type: "category",
        data: view.bars ?? data.bars,
        inverse: true,
        axisLabel: { color: colour("--text"), formatter: shortened },
      }),
      tooltip: tooltip((p) =>
        note(p.name, [[p.seriesName, `${number(p.value)} ms`], ...p.data.more]),
      ),
      series,
    },
  };
}

/** What makes one case's step longer than another's: each bar begins where the one above ends. */
function waterfall(data, choice) {
  const { rows, less, second } = data.choices.find((each) => each.key === choice) ?? data.choices[0];
  const kind = (row) => (!row.sure ? "unsure" : row.value > 0 ? "longer" : "shorter");
  const signed = (ms) => (Math.abs(ms) < 0.005 ? "0.00" : `${ms < 0 ? "\u2212" : "+"}${Math.abs(ms).toFixed(2)}`);
  const named = rows.map((row) => `${row.title}\n${signed(row.value)} ms`);
  const tip = (row) => note(row.title, [[less, `${signed(row.value)} ms`], ...(row.text ? [["95 %", row.text]] : [])]);
  const stack = { type: "bar", stack: "step", stackStrategy: "all", barMaxWidth: 14 };
  return {
    parts: [
      { key: "longer", title: `${second} takes longer` },
      { key: "shorter", title: `${second} takes less` },
      { key: "unsure", title: "may be no difference" },
    ],
    option: {
      grid: { left: 8, right: 20, top: 8, bottom: 30, containLabel: true },
      xAxis: below(`ms of a decode step, ${less}`, { type: "value" }),
      yAxis: axis("", {
        type: "category",
        data: named,
        inverse: true,
        axisLabel: { color: colour("--text"), interval: 0, lineHeight: 15 },
      }),
      tooltip: tooltip((p) => tip(rows[p.data.at])),
      series: [
        {
          ...stack,
          name: "begin",
          silent: true,
          itemStyle: { color: "transparent" },
          data: rows.map((row) => row.from),
        },
        {
          ...stack,
          name: less,
          data: rows.map((row, at) => ({
            value: row.value,
            at,
            itemStyle: {
              color: colour(`--${kind(row)}`),
              borderColor: colour("--text"),
              borderWidth: row.whole ? 1.5 : 0,
            },
          })),
        },
        ...rows.flatMap((row, at) =>
          row.interval
            ? [
                {
                  type: "line",
                  name: `interval of ${row.title}`,
                  data: row.interval.map((x) => ({ value: [x, at], at })),
                  symbol: "rect",
                  symbolSize: [2, 9],
                  lineStyle: { color: colour("--text"), width: 1.2 },
                  itemStyle: { color: colour("--text") },
                },
              ]
            : [],
        ),
      ],
    },
  };
}

/** A long name without its middle: its ends tell it from others. */
function shortened(name) {
  return name.length <= 30 ? name : `${name.slice(0, 14)}\u2026${name.slice(-14)}`;
}

/** Buttons that show and hide a case, each with its colour; a list of how rounds are dashed. */
function casesOf(figure, cases, data, shown, redraw) {
  const box = figure.querySelector(".key");
  const all = data.choices ? data.choices.flatMap((each) => each.points) : data.series;
  for (const [number_, name] of cases.entries()) {
    if (!all.some((one) => one.case === number_)) continue;
    const swatch = element("i", { class: `case-${number_ % 8}`, "aria-hidden": "true" });
    const button = element("button", { type: "button", "aria-pressed": "true" }, swatch, name);
    button.addEventListener("click", () => {
      const isShown = shown.has(number_);
      if (isShown && shown.size === 1) return;
      if (isShown) shown.delete(number_);
      else shown.add(number_);
      button.setAttribute("aria-pressed", String(!isShown));
      redraw();
    });
    box.append(button);
  }
  return () => {};
}

/** What the colours of the stacked bars mean; they change with the view. */
function keyOf(figure) {
  const box = figure.querySelector(".key");
  return ({ parts }) => {
    box.replaceChildren(
      ...parts.map((part) =>
        element("span", {}, element("i", { class: part.key, "aria-hidden": "true" }), part.title),
      ),
    );
  };
}

function choiceOf(data, figure) {
  const select = element("select", { "aria-label": data.choose });
  for (const each of data.choices) {
    select.append(element("option", { value: each.key, text: each.title }));
  }
  figure.querySelector(".key").before(element("label", { class: "choose" }, data.choose, select));
  return select;
}
