/** Elements made in one expression. */

/**
 * An element with properties, listeners (`onclick`), attributes (`aria-…`, `data-…`, `role`, `for`),
 * `style` as an object, and children. Children that are null or false are left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (/^(aria-|data-|role$|for$|list$)/.test(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...kept(children));
  return element;
}

function kept(children) {
  return children.flat(2).filter(one => one !== null && one !== undefined && one !== false);
}

export function fill(element, ...children) {
  element.replaceChildren(...kept(children));
  return element;
}

export const at = id => document.getElementById(id);

/** Call once, when the element first comes within a margin (a CSS length) of the window. */
export function whenNear(element, margin, then) {
  const observer = new IntersectionObserver(entries => {
    // A busy browser tells several changes at once; any of them may be the one that counts.
    if (!entries.some(({isIntersecting}) => isIntersecting)) return;
    observer.disconnect();
    then();
  }, {rootMargin: margin});
  observer.observe(element);
  return observer;
}

/** Whether a key press belongs to what has the focus, such as a field that is typed into. */
export function isTyping(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  return target.matches?.("input:not([type=checkbox]):not([type=radio]), textarea, select");
}

let announcements = 0;

/** Have a screen reader say a sentence, without moving the focus. */
export function announce(text) {
  const mine = ++announcements;
  at("announcer").textContent = "";
  setTimeout(() => { if (mine === announcements) at("announcer").textContent = text; }, 50);
}

let removal = 0;

/** Show a sentence at the foot of the window for a while, with an action where there is one. */
export function toast(text, action = null) {
  const again = action && h("button", {type: "button", className: "link", onclick: () => {
    at("toast").hidden = true;
    action.run();
  }}, action.label);
  fill(at("toast"), h("span", {}, text), again).hidden = false;
  clearTimeout(removal);
  removal = setTimeout(() => { at("toast").hidden = true; }, action ? 12000 : 5000);
}

/** A message where a view has nothing else to show. */
export function notice(kind, title, ...more) {
  return h("div", {className: `notice ${kind}`, role: kind === "error" ? "alert" : null},
           h("p", {className: "notice-title"}, title), ...more);
}
