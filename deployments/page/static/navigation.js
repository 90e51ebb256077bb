/** Where the page is: a view and its parameters in the fragment of the address, and what can't be
 * in an address (an uploaded picture, the place on the page) in the state of the history entry. */

let listener = () => {};

export function current() {
  const [path, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return {view: path || "search", parameters: new URLSearchParams(parameters), state: history.state || {}};
}

/** Go to another place; `replace` leaves no entry to come back to. */
export function go(fragment, state = {}, {replace = false} = {}) {
  rememberPlace();
  history[replace ? "replaceState" : "pushState"](state, "", fragment);
  listener();
}

export function onNavigation(run) {
  listener = run;
  history.scrollRestoration = "manual";
  addEventListener("popstate", run);
}

/** Keep how far the page is scrolled, for when one comes back. */
export function rememberPlace() {
  history.replaceState({...history.state, scrolled: scrollY}, "");
}

let settling = 0;
addEventListener("scroll", () => {
  clearTimeout(settling);
  settling = setTimeout(() => { if (!document.querySelector("dialog[open]")) rememberPlace(); }, 150);
}, {passive: true});
