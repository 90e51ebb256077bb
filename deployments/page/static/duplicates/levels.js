/** What the levels of duplicates are called, the strictest first. */

export const LEVELS = {
  bytes: "The same file", pixels: "The same pixels", reencode: "Saved again", resize: "Another size", turned: "Turned or mirrored",
  crop: "Crops", bordered: "With a border", edited: "Edited", collage: "Collages", raw: "Raw and its picture", burst: "Bursts", similar: "Similar",
};

export const levelName = level => LEVELS[level] || level;
