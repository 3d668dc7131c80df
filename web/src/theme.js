// Colours from the style sheet, so that light and dark are said once; who wants to know of a change.
const listeners = [];
const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** A colour of the style sheet by its custom property, `--case-0`. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The colour of the case of that number; they repeat after eight. */
export function caseColour(number) {
  return colour(`--case-${number % 8}`);
}

export function onTheme(listener) {
  listeners.push(listener);
}

function changed() {
  for (const listener of listeners) listener();
}

dark.addEventListener("change", changed);

/** A button that goes from the system's choice to the other one, and back. */
export function themeButton(button) {
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show the page in ${isDark() ? "light" : "dark"} colours`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
    changed();
  });
  onTheme(label);
  label();
}
