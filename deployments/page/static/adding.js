/** Adding pictures: a dialog that takes files and says of each what became of it. */

import {ApiError, getJson, sendPictures, thumbnail} from "./api.js";
import {at, fill, h} from "./dom.js";
import {many, nameOf} from "./words.js";

const AT_ONCE = 3;
let whenAdded = () => {};

/** Have a function called after pictures were added. */
export function onAdded(run) { whenAdded = run; }

export function openAdding(files = []) {
  const dialog = at("adding");
  const list = h("ul", {className: "added"});
  const progress = h("progress", {max: 1, value: 0, hidden: true, "aria-label": "Progress of adding"});
  const note = h("p", {role: "status", className: "soft"}, "A picture that is stored already, also as a copy, is not added again.");
  const input = h("input", {type: "file", multiple: true, accept: "image/*,.heic,.heif,.avif,.jxl,.psd,.tif,.tiff", "aria-label": "Choose pictures to add"});
  const close = h("button", {type: "button", className: "primary", onclick: () => dialog.close()}, "Done");
  const run = {list, progress, note, done: 0, total: 0, added: 0, known: 0, failed: 0, waiting: [], busy: 0};
  input.onchange = () => enqueue(run, [...input.files]);
  dialog.onclose = () => { if (run.added) whenAdded(); };
  fill(dialog, h("div", {className: "adding"},
    h("h2", {id: "adding-title"}, "Add pictures"),
    h("label", {className: "drop"}, h("strong", {}, "Drop pictures here"), h("span", {}, "or choose files"), input),
    note, progress, list, h("div", {className: "row end"}, close)));
  dialog.take = more => enqueue(run, more);
  if (!dialog.open) dialog.showModal();
  if (files.length) enqueue(run, files);
}

function enqueue(run, files) {
  run.waiting.push(...files);
  run.total += files.length;
  run.progress.hidden = false;
  while (run.busy < AT_ONCE && run.waiting.length) work(run);
  tell(run);
}

async function work(run) {
  run.busy += 1;
  while (run.waiting.length) await add(run, run.waiting.shift());
  run.busy -= 1;
}

async function add(run, file) {
  const item = h("li", {}, h("span", {className: "added-name"}, file.name || "picture"), h("span", {className: "soft"}, "adding …"));
  run.list.prepend(item);
  try {
    const row = await (await sendPictures("v1/images?unless=same", null, [file])).json();
    run.added += 1;
    say(item, "good", `added as ${row.image_id}`, row.image_id);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const id = error.problem.image_id;
    if (error.status === 409 && id !== undefined) {
      run.known += 1;
      const name = nameOf(await getJson(`v1/images/${id}`).catch(() => ({image_id: id})));
      say(item, "known", `there already, as ${name.toLowerCase() === `image ${id}` ? `image ${id}` : `${name} (${id})`}`, id);
    } else {
      run.failed += 1;
      say(item, "bad", error.message);
    }
  }
  run.done += 1;
  tell(run);
}

function say(item, kind, text, id) {
  item.className = kind;
  item.lastElementChild.textContent = text;
  if (id !== undefined) item.prepend(thumbnail(id, "", {lazy: false}));
}

function tell(run) {
  run.progress.max = Math.max(1, run.total);
  run.progress.value = run.done;
  const said = [`${run.done} of ${many(run.total, "picture")}`, run.added && `${run.added} added`,
                run.known && `${run.known} there already`, run.failed && `${run.failed} failed`];
  run.note.textContent = said.filter(Boolean).join(", ");
}

/**
 * Take files that are dropped or pasted anywhere. In the dialog they are added, and so are several
 * at once; one picture elsewhere is searched by.
 */
export function listenForFiles(search) {
  let inside = 0;
  const isOfFiles = event => [...(event.dataTransfer?.types || [])].includes("Files");
  const isEmpty = () => at("found").querySelector(".invite");
  const cover = shown => {
    at("dropping").hidden = !shown || at("adding").open;
    at("dropping").firstElementChild.textContent = isEmpty() ? "Drop to add" : "Drop one picture to search by it, several to add them";
  };
  const take = files => {
    if (!files.length) return;
    if (at("adding").open) at("adding").take(files);
    else if (files.length > 1 || isEmpty()) openAdding(files);
    else search(files);
  };
  addEventListener("dragenter", event => { if (isOfFiles(event)) { inside += 1; cover(true); } });
  addEventListener("dragleave", event => { if (isOfFiles(event) && --inside <= 0) cover(false); });
  addEventListener("dragover", event => { if (isOfFiles(event)) event.preventDefault(); });
  addEventListener("drop", event => {
    if (!isOfFiles(event)) return;
    event.preventDefault();
    inside = 0;
    cover(false);
    take([...event.dataTransfer.files]);
  });
  addEventListener("paste", event => {
    const files = [...(event.clipboardData?.files || [])].filter(one => one.type.startsWith("image/"));
    if (files.length) { event.preventDefault(); take(files); }
  });
}
