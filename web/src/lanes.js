// Swim lanes of some decode steps: all ranks of one case above those of the next, on one scale.
// Drawn on a plain canvas: 16,000 slices take milliseconds there, and zoom stays smooth.
import { element, note, number, soon } from "./dom.js";
import { colour, onTheme } from "./theme.js";

const ROW = 17; // px: one lane
const GAP = 7; // px: between ranks
const HEAD = 26; // px: the title of a case
const AXIS = 22; // px: the scale at the foot
const LEAST_US = 0.5; // no zoom beyond so much in the whole width

/** The lanes of a picture, top down, each with its slices by start: [kind, start, end, more]. */
function laneList(pictures) {
  const lanes = [];
  let y = 0;
  for (const picture of pictures) {
    lanes.push({ title: picture.title, y, height: HEAD, slices: [] });
    y += HEAD;
    for (const rank of picture.ranks) {
      for (const lane of rank.lanes) {
        const name = `PP${rank.label} ${lane.name}`;
        lanes.push({ ...lane, rank: rank.label, label: name, picture, y, height: ROW });
        y += ROW;
      }
      y += GAP;
    }
  }
  return { lanes, height: y + AXIS };
}

/** The first slice that ends after a time; slices are sorted and do not overlap. */
function firstAfter(slices, time) {
  let [low, high] = [0, slices.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (slices[middle][2] <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

function duration(us) {
  if (us === 0) return "0";
  if (us >= 1000) return `${number(us / 1000)} ms`;
  return `${number(us)} us`;
}

/** A step of the scale, 1, 2 or 5 times a power of ten. */
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

export function drawLanes(facts, drawn) {
  const figure = document.getElementById("lanes");
  if (!figure || !facts.lanes.pictures.length) return;
  soon(figure, () => {
    drawn.lanes = new Lanes(figure, facts.lanes);
  });
}

class Lanes {
  constructor(figure, { pictures, kinds }) {
    this.pictures = pictures;
    this.kinds = kinds; // kind -> title
    this.box = figure.querySelector(".plot");
    this.tip = element("div", { class: "tip", hidden: true });
    this.said = element("p", { class: "said", "aria-live": "polite" });
    this.canvas = element("canvas", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "timeline",
      "aria-label": `${figure.querySelector(".alt").textContent} Up and down choose a lane, comma
        and full stop go from slice to slice, plus, minus and the arrows zoom and move.`,
    });
    this.box.append(this.canvas, this.tip);
    this.box.after(this.said);
    Object.assign(this, laneList(pictures));
    this.whole = Math.max(...pictures.map((picture) => picture.length_us));
    this.start = 0;
    this.length = this.whole;
    this.cursor = null; // { lane, at }: the slice that the keyboard or the pointer is on
    this.count = this.lanes.reduce((sum, lane) => sum + lane.slices.length, 0);
    this.canvas.style.height = `${this.height}px`;
    this.toolbar(figure);
    this.listen();
    onTheme(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.draw();
  }

  toolbar(figure) {
    const buttons = [
      ["−", "zoom out", () => this.zoom(2)],
      ["+", "zoom in", () => this.zoom(0.5)],
      ["◀", "earlier", () => this.move(-0.25)],
      ["▶", "later", () => this.move(0.25)],
      ["whole", "show all", () => this.show(0, this.whole)],
    ].map(([text, label, act]) => {
      const button = element("button", { type: "button", "aria-label": label, title: label, text });
      button.addEventListener("click", act);
      return button;
    });
    figure.querySelector(".tools").append(...buttons);
  }

  get left() {
    return this.canvas.clientWidth < 560 ? 64 : 104;
  }

  x(us) {
    return this.left + ((us - this.start) / this.length) * (this.canvas.clientWidth - this.left);
  }

  time(x) {
    return this.start + ((x - this.left) / (this.canvas.clientWidth - this.left)) * this.length;
  }

  show(start, length) {
    this.length = Math.min(this.whole, Math.max(LEAST_US, length));
    this.start = Math.min(this.whole - this.length, Math.max(0, start));
    this.draw();
  }

  zoom(factor, around = this.start + this.length / 2) {
    const length = Math.min(this.whole, Math.max(LEAST_US, this.length * factor));
    this.show(around - ((around - this.start) * length) / this.length, length);
  }

  move(share) {
    this.show(this.start + share * this.length, this.length);
  }

  listen() {
    const { canvas } = this;
    const fingers = new Map();
    let pinch = 0;
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
        event.preventDefault();
        this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.time(event.offsetX));
      },
      { passive: false },
    );
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event.offsetX);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (before === undefined) return this.hover(event.offsetX, event.offsetY);
      fingers.set(event.pointerId, event.offsetX);
      const all = [...fingers.values()];
      if (all.length === 2) {
        const apart = Math.abs(all[0] - all[1]);
        if (pinch) this.zoom(pinch / Math.max(8, apart), this.time((all[0] + all[1]) / 2));
        pinch = Math.max(8, apart);
      } else {
        const wide = canvas.clientWidth - this.left;
        this.show(this.start - ((event.offsetX - before) / wide) * this.length, this.length);
      }
      this.hover(event.offsetX, event.offsetY);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        fingers.delete(event.pointerId);
        pinch = 0;
      });
    }
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("dblclick", (event) => this.zoom(0.4, this.time(event.offsetX)));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      0: () => this.show(0, this.whole),
      ArrowLeft: () => this.move(-0.2),
      ArrowRight: () => this.move(0.2),
      ArrowUp: () => this.lane(-1),
      ArrowDown: () => this.lane(1),
      ",": () => this.slice(-1),
      ".": () => this.slice(1),
      Escape: () => this.point(null),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  /** Go to the lane above or below, to its slice that is nearest to the middle of the picture. */
  lane(step) {
    const full = this.lanes.filter((lane) => lane.slices.length);
    const at = this.cursor ? full.indexOf(this.cursor.lane) + step : 0;
    const lane = full[Math.min(full.length - 1, Math.max(0, at))];
    const slice = this.cursor?.lane.slices[this.cursor.at];
    const moment = slice ? slice[1] : this.start + this.length / 2;
    this.say(lane, Math.min(lane.slices.length - 1, firstAfter(lane.slices, moment)));
  }

  slice(step) {
    if (!this.cursor) return this.lane(0);
    const { lane, at } = this.cursor;
    this.say(lane, Math.min(lane.slices.length - 1, Math.max(0, at + step)));
  }

  /** Put the keyboard's cursor on a slice, bring it into view and say what it is. */
  say(lane, at) {
    const [, start, end] = lane.slices[at];
    if (start < this.start || end > this.start + this.length) {
      this.show((start + end) / 2 - this.length / 2, this.length);
    }
    const rows = this.describe(lane, at);
    this.point({ lane, at }, this.x((start + end) / 2), lane.y + ROW);
    this.said.textContent = `${lane.picture.title}, ${rows.map((row) => row.join(" ")).join(", ")}`;
  }

  hover(x, y) {
    const lane = this.lanes.find((each) => y >= each.y && y < each.y + each.height);
    if (!lane?.picture || x < this.left) return this.point(null);
    const moment = this.time(x);
    const margin = (2 / (this.canvas.clientWidth - this.left)) * this.length; // 2 px
    const at = firstAfter(lane.slices, moment - margin);
    const slice = lane.slices[at];
    if (slice && slice[1] <= moment + margin) return this.point({ lane, at }, x, y);
    this.point({ lane, at: null, moment }, x, y);
  }

  /** What the tooltip says of a slice, or of the time between two: [name, value] rows. */
  describe(lane, at, moment = 0) {
    if (at === null) {
      const after = firstAfter(lane.slices, moment);
      const from = after ? lane.slices[after - 1][2] : 0;
      const to = lane.slices[after]?.[1] ?? lane.picture.length_us;
      return [
        [lane.label, lane.between],
        ["for", duration(to - from)],
      ];
    }
    const [kind, start, end, more] = lane.slices[at];
    return [
      lane.key === "waits"
        ? [lane.label.replace(/ waits$/, " host"), `waits ${this.kinds[kind]}`]
        : [lane.label, this.kinds[kind]],
      ["for", duration(end - start)],
      ["from", duration(start)],
      ...(more ? [["message", more]] : []),
    ];
  }

  point(cursor, x = 0, y = 0) {
    this.cursor = cursor;
    this.tip.hidden = !cursor;
    if (cursor) {
      const [[, what], ...rows] = this.describe(cursor.lane, cursor.at, cursor.moment);
      this.tip.replaceChildren(note(what, [["", cursor.lane.label.replace(/ waits$/, " host")], ...rows]));
      const wide = this.tip.offsetWidth;
      const room = this.canvas.clientWidth - wide - 4;
      this.tip.style.left = `${Math.max(0, Math.min(room, x + 12))}px`;
      this.tip.style.top = `${y + 18}px`;
    }
    this.draw();
  }

  draw() {
    const began = performance.now();
    const { canvas, height } = this;
    const wide = canvas.clientWidth;
    if (!wide) return;
    const scale = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(wide * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, wide, height);
    const colours = Object.fromEntries(Object.keys(this.kinds).map((k) => [k, colour(`--${k}`)]));
    const [text, quiet, line, empty] = ["text", "quiet", "line", "idle"].map((n) => colour(`--${n}`));
    const family = getComputedStyle(canvas).fontFamily;
    pen.textBaseline = "middle";
    this.grid(pen, wide, quiet, line, family);
    this.drawn = 0;
    for (const lane of this.lanes) this.drawLane(pen, lane, wide, { colours, text, quiet, empty, family });
    for (const picture of this.pictures) this.arrows(pen, picture, wide);
    if (this.cursor?.at != null) this.outline(pen, text);
    this.ms = performance.now() - began;
  }

  grid(pen, wide, quiet, line, family) {
    const step = niceStep((this.length / (wide - this.left)) * 90);
    pen.font = `11px ${family}`;
    pen.textAlign = "center";
    for (let at = Math.ceil(this.start / step) * step; at <= this.start + this.length; at += step) {
      const x = this.x(at);
      pen.fillStyle = line;
      pen.fillRect(Math.round(x), 0, 1, this.height - AXIS);
      pen.fillStyle = quiet;
      const label = duration(at);
      const half = pen.measureText(label).width / 2;
      pen.fillText(label, Math.min(wide - half, Math.max(this.left + half, x)), this.height - AXIS / 2);
    }
  }

  drawLane(pen, lane, wide, { colours, text, quiet, empty, family }) {
    pen.textAlign = "left";
    if (!lane.picture) {
      pen.fillStyle = text;
      pen.font = `600 12px ${family}`;
      pen.fillText(lane.title, 0, lane.y + HEAD / 2, wide);
      return;
    }
    pen.fillStyle = quiet;
    pen.font = `11px ${family}`;
    pen.fillText(wide < 560 ? `${lane.rank} ${lane.name}` : lane.label, 0, lane.y + ROW / 2, this.left - 4);
    const end = this.x(Math.min(lane.picture.length_us, this.start + this.length));
    pen.fillStyle = empty;
    if (end > this.left) pen.fillRect(this.left, lane.y + 1, end - this.left, ROW - 2);
    const thin = lane.thin ? 6 : 0; // a lane of causes hangs below that of calls
    let painted = -1; // the last column that holds a sliver, not to paint thousands into one
    for (let at = firstAfter(lane.slices, this.start); at < lane.slices.length; at += 1) {
      const [kind, start, stop] = lane.slices[at];
      if (start > this.start + this.length) break;
      const [from, to] = [Math.max(this.left, this.x(start)), Math.min(wide, this.x(stop))];
      if (to - from < 0.5 && Math.floor(from * 2) === painted) continue;
      painted = Math.floor(from * 2);
      pen.fillStyle = colours[kind];
      pen.fillRect(from, lane.y + 1 + thin / 2, Math.max(0.5, to - from), ROW - 2 - thin);
      this.drawn += 1;
    }
  }

  /** A line from each send to the receive that it is paired with. */
  arrows(pen, picture, wide) {
    const rows = new Map();
    for (const lane of this.lanes) {
      if (lane.picture === picture) rows.set(`${lane.rank} ${lane.key}`, lane.y + ROW / 2);
    }
    for (const [src, dst, sent, received, tokens] of picture.messages) {
      if (received < this.start || sent > this.start + this.length) continue;
      const [from, to] = [rows.get(`${src} sends`), rows.get(`${dst} receives`)];
      if (from === undefined || to === undefined) continue;
      const [x1, x2] = [this.x(sent), this.x(received)];
      if (Math.max(x1, x2) < this.left || Math.min(x1, x2) > wide) continue;
      pen.save();
      pen.beginPath();
      pen.rect(this.left, 0, wide - this.left, this.height);
      pen.clip();
      pen.strokeStyle = pen.fillStyle = colour(tokens ? "--token_send" : "--hidden_send");
      pen.globalAlpha = tokens ? 0.9 : 0.45;
      pen.lineWidth = tokens ? 1.4 : 1;
      pen.beginPath();
      pen.moveTo(x1, from);
      pen.lineTo(x2, to);
      pen.stroke();
      pen.beginPath();
      pen.arc(x2, to, tokens ? 2.5 : 1.8, 0, 7);
      pen.fill();
      pen.restore();
    }
  }

  outline(pen, text) {
    const { lane, at } = this.cursor;
    const [, start, end] = lane.slices[at];
    pen.strokeStyle = text;
    pen.lineWidth = 1.5;
    const x = Math.max(this.left, this.x(start));
    pen.strokeRect(x, lane.y + 0.75, Math.max(1.5, this.x(end) - x), ROW - 1.5);
  }
}
