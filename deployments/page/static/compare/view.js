/** Zoom and place, shared by all panes: wheel, drag, pinch, double click. */

const MOST = 24;
const MARGIN = 0.97;

/** Follow the pointer on `element`; `changed` is called when the view has changed. */
export function makeView(element, changed) {
  let zoom = 1, x = 0.5, y = 0.5;
  const pointers = new Map();
  let fit = {width: 1, height: 1, scale: 1};

  const limit = () => {
    zoom = Math.min(MOST, Math.max(1, zoom));
    [x, y] = zoom === 1 ? [0.5, 0.5] : [Math.min(1, Math.max(0, x)), Math.min(1, Math.max(0, y))];
  };
  /** The offset of a point of the window from the middle of its pane, in pixels. */
  const fromMiddle = (clientX, clientY) => {
    const pane = document.elementsFromPoint(clientX, clientY).find(one => one.classList.contains("pane")) || element;
    const bounds = pane.getBoundingClientRect();
    return [clientX - bounds.left - bounds.width / 2, clientY - bounds.top - bounds.height / 2];
  };
  const zoomAt = (factor, dx, dy) => {
    const before = fit.scale * zoom;
    zoom *= factor;
    limit();
    const after = fit.scale * zoom;
    x += dx * (1 / before - 1 / after) / fit.width;
    y += dy * (1 / before - 1 / after) / fit.height;
    limit();
    changed();
  };
  const panBy = (dx, dy) => {
    x += dx / (fit.scale * zoom * fit.width);
    y += dy / (fit.scale * zoom * fit.height);
    limit();
    changed();
  };
  element.addEventListener("wheel", event => {
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0022)), ...fromMiddle(event.clientX, event.clientY));
  }, {passive: false});
  element.addEventListener("dblclick", event => zoomAt(zoom > 1.01 ? 1 / zoom : 3, ...fromMiddle(event.clientX, event.clientY)));
  element.addEventListener("pointerdown", event => {
    pointers.set(event.pointerId, event);
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", event => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const others = [...pointers.values()].filter(one => one.pointerId !== event.pointerId);
    if (!others.length) panBy(last.clientX - event.clientX, last.clientY - event.clientY);
    else {
      const [other] = others;
      const away = one => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      zoomAt(away(event) / Math.max(1, away(last)), ...fromMiddle((event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2));
    }
    pointers.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, event => pointers.delete(event.pointerId));

  return {
    zoomBy: factor => zoomAt(factor, 0, 0),
    panBy,
    reset() { zoom = 1; limit(); changed(); },
    /** Where a frame of these sides lies in a pane: the offset of its corner, and its scale. */
    placed(width, height, sides) {
      const scale = MARGIN * Math.min(width / sides.width, height / sides.height);
      fit = {...sides, scale};
      return {left: width / 2 - x * sides.width * scale * zoom, top: height / 2 - y * sides.height * scale * zoom, scale: scale * zoom};
    },
  };
}
