// Elements from data: text is always text, never markup.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/** A small box for a tooltip: a bold line, then lines of [name, value]. */
export function note(title, rows) {
  const box = element("div", { class: "note" }, element("strong", { text: title }));
  for (const [name, value] of rows) {
    box.append(
      element("div", {}, element("span", { text: name }), element("b", { text: value })),
    );
  }
  return box;
}

/** A number with three significant digits, more above a thousand. */
export function number(value) {
  if (value == null || !Number.isFinite(value)) return "-";
  if (Math.abs(value) >= 1000) return value.toFixed(0);
  return String(Number(value.toPrecision(3)));
}

const AT_ONCE_MS = 1000; // of drawing that a page begins with: all pictures of most reports
const late = new Set(); // what is not drawn yet
let spent = 0;

function timed(draw) {
  const began = performance.now();
  draw();
  spent += performance.now() - began;
}

/** Call `draw` once: now, while that takes no more than AT_ONCE_MS for all pictures together; a
    later one when it comes near the screen or nothing else is to do, at the latest for a print. */
export function soon(target, draw) {
  if (spent < AT_ONCE_MS) return timed(draw);
  const act = () => {
    if (!late.delete(act)) return;
    observer.disconnect();
    draw();
  };
  const observer = new IntersectionObserver(
    (entries) => entries.some((entry) => entry.isIntersecting) && act(),
    { rootMargin: "300px" },
  );
  observer.observe(target);
  late.add(act);
  if (late.size === 1) whenIdle();
}

function whenIdle() {
  const wait = window.requestIdleCallback ?? ((act) => setTimeout(act, 50)); // Safari has none
  wait(() => {
    for (const act of [...late].slice(0, 1)) act();
    if (late.size) whenIdle();
  });
}

window.addEventListener("beforeprint", () => [...late].forEach((act) => act()));
