/** Moving among tiles by the keyboard. One tile at a time can be reached by Tab. */

const TILE = ".tile";

const tiles = root => [...root.querySelectorAll(TILE)].filter(one => one.offsetParent !== null);
const focusable = tile => tile.querySelectorAll("a, button");

export function focusFirst(root) { focus(tiles(root)[0], root); }

/** Make the tile the one that Tab reaches; and focus its picture. */
function focus(tile, root) {
  if (!tile) return;
  makeCurrent(tile, root);
  tile.querySelector("a, button")?.focus();
  tile.scrollIntoView({block: "nearest"});
}

export function makeCurrent(tile, root) {
  for (const other of root.querySelectorAll(`${TILE}.current`)) {
    if (other === tile) continue;
    other.classList.remove("current");
    for (const one of focusable(other)) one.tabIndex = -1;
  }
  tile.classList.add("current");
  for (const one of focusable(tile)) one.tabIndex = 0;
}

/** Handle a key press anywhere outside of fields. */
export function keydown(event, root) {
  const at = document.activeElement?.closest(TILE);
  if (event.key === "c" || event.key === "C") {
    (at || tiles(root)[0])?.querySelector(".why")?.click();
    return;
  }
  if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
  const all = tiles(root);
  if (!at) {
    if (event.key === "ArrowRight" && document.activeElement === document.body) focusFirst(root);
    return;
  }
  event.preventDefault();
  focus(target(event.key, all, at), root);
}

function target(key, all, at) {
  const index = all.indexOf(at);
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  if (key === "ArrowLeft") return all[index - 1];
  if (key === "ArrowRight") return all[index + 1];
  const here = at.getBoundingClientRect(), down = key === "ArrowDown";
  const centre = here.left + here.width / 2;
  let row = null, best = null, gap = Infinity;
  const ordered = down ? all.slice(index + 1) : all.slice(0, index).reverse();
  for (const tile of ordered) {
    const there = tile.getBoundingClientRect();
    const isBeyond = down ? there.top >= here.bottom - 2 : there.bottom <= here.top + 2;
    if (!isBeyond) continue;
    row ??= there.top;
    if (Math.abs(there.top - row) > 2) break;
    const away = Math.abs(there.left + there.width / 2 - centre);
    if (away < gap) [best, gap] = [tile, away];
  }
  return best;
}
