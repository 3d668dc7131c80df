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

/** Call `draw` once, when the element comes near the screen. */
export function whenNear(target, draw) {
  if (!("IntersectionObserver" in window)) return draw();
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      draw();
    },
    { rootMargin: "300px" },
  );
  observer.observe(target);
}
