/** The table of what differs between two images of a group, and what a merge would give. */

import {getJson} from "../api.js";
import {fill, h} from "../dom.js";
import {bytes, date, moment, nameOf} from "../words.js";

const ROWS = [
  ["Name", image => nameOf(image)],
  ["Size", image => `${image.width} × ${image.height}`],
  ["File", image => bytes(image.bytes)],
  ["Format", image => image.format || ""],
  ["Taken", image => { const made = date(image.taken); return made ? moment(made) : ""; }],
  ["Added", image => { const made = date(image.created); return made ? moment(made) : ""; }],
  ["Tags", image => image.tags.join(", ")],
];
const said = new Map();

/** Only rows that differ; the better one is marked, with the reasons that the service gives. */
export function differences(left, right) {
  const rows = ROWS.map(([name, of]) => [name, of(left), of(right)]).filter(([, one, other]) => one !== other);
  const head = image => h("th", {scope: "col"}, image.best ? h("span", {className: "best"}, "Better") : "", h("span", {className: "reasons"}, image.reasons.join(", ")));
  const captions = h("tbody", {});
  const merge = h("p", {className: "merge"});
  merged(left, right, captions, merge);
  return [h("table", {className: "differences"},
    h("thead", {}, h("tr", {}, h("td", {}), head(left), head(right))),
    h("tbody", {}, rows.map(([name, one, other]) => h("tr", {}, h("th", {scope: "row"}, name), h("td", {}, one || "–"), h("td", {}, other || "–")))), captions), merge];
}

function annotationsOf(id) {
  if (!said.has(id)) said.set(id, getJson(`v1/images/${id}`).then(row => row.annotations || {}, () => ({})));
  return said.get(id);
}

/** What the one that stays takes over from the other: tags, and what a person wrote. */
async function merged(left, right, captions, place) {
  const [one, other] = await Promise.all([annotationsOf(left.image_id), annotationsOf(right.image_id)]);
  const text = (row, name) => row[name]?.text || "";
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])].filter(name => text(one, name) !== text(other, name));
  fill(captions, names.map(name => h("tr", {}, h("th", {scope: "row"}, name), h("td", {}, text(one, name) || "–"), h("td", {}, text(other, name) || "–"))));
  const gains = (keeper, mine, loser, theirs) => {
    const tags = loser.tags.filter(tag => !keeper.tags.includes(tag));
    const written = Object.keys(theirs).filter(name => theirs[name].by === "person" && !(mine[name]?.by === "person"));
    return [tags.length && `the ${tags.length === 1 ? "tag" : "tags"} ${tags.join(", ")}`, ...written.map(name => `${name} “${text(theirs, name)}”`)].filter(Boolean).join(" and ");
  };
  const kept = [["left", gains(left, one, right, other)], ["right", gains(right, other, left, one)]].filter(([, gain]) => gain);
  fill(place, kept.map(([side, gain]) => h("span", {}, `Keep ${side}: it takes over ${gain}.`)));
}
