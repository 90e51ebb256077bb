/** The query picture, on which a region can be drawn, beside what else is asked for. */

import {thumbnail} from "../api.js";
import {at, fill, h} from "../dom.js";
import {hasPicture, upload} from "./query.js";
import {drawRegions} from "./region.js";

export function showAsked(query, change) {
  const panel = at("asked");
  panel.hidden = !hasPicture(query);
  if (panel.hidden) { panel.dataset.of = ""; return; }
  const of = query.upload ? `upload ${query.upload}` : `like ${query.like.join()}`;
  if (panel.dataset.of !== of) build(panel, query, of);
  panel.update(query, change);
}

function build(panel, query, of) {
  panel.dataset.of = of;
  const file = query.upload && upload(query.upload).file;
  const image = query.upload
    ? h("img", {src: upload(query.upload).url, alt: "Your picture", draggable: false})
    : thumbnail(query.like[0], `Image ${query.like[0]}`, {lazy: false});
  const frame = h("div", {className: "asked-frame"}, image);
  const others = query.like.slice(query.upload ? 0 : 1).map(id => thumbnail(id, `Image ${id}`, {className: "asked-more"}));
  const title = h("p", {className: "asked-title"});
  const hint = h("p", {className: "soft"});
  const part = h("button", {type: "button", className: "quiet"}, "Search a part");
  const whole = h("button", {type: "button", className: "quiet"}, "Search the whole picture");
  const clear = h("button", {type: "button", className: "quiet"}, "Remove the picture");
  image.addEventListener("error", async () => {
    frame.classList.add("undrawn");
    if (!query.upload) return;
    await upload(query.upload).size;
    if (image.src !== upload(query.upload).url) image.src = upload(query.upload).url;
  });
  image.addEventListener("load", () => {
    frame.classList.remove("undrawn");
    panel.tell?.();
  });
  fill(panel, h("div", {className: "asked-pictures"}, frame, others), h("div", {className: "asked-text"}, title, hint, h("div", {className: "row"}, part, whole, clear)));
  const regions = drawRegions(frame);
  panel.update = (now, change) => {
    panel.tell = () => panel.update(now, change);
    title.textContent = file ? file.name || "Your picture" : `Like image ${now.like.join(" and ")}`;
    if (frame.classList.contains("undrawn")) hint.textContent = "";
    else hint.textContent = now.region ? "Searching the marked part. Drag the box to move it, or its corner to resize it." : "Draw a box on the picture to search only that part.";
    whole.hidden = !now.region;
    part.hidden = Boolean(now.region) || frame.classList.contains("undrawn");
    regions.set(now.region, region => change({region}));
    part.onclick = () => regions.begin();
    whole.onclick = () => change({region: null});
    clear.onclick = () => change({upload: null, like: [], region: null});
  };
}
