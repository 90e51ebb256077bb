/** 3×3 matrices as rows, and what CSS makes of them. */

export const IDENTITY = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];

export const scaling = (x, y = x) => [[x, 0, 0], [0, y, 0], [0, 0, 1]];
export const moving = (x, y) => [[1, 0, x], [0, 1, y], [0, 0, 1]];

export function product(...matrices) {
  return matrices.reduce((one, other) => one.map(row => [0, 1, 2].map(at => row[0] * other[0][at] + row[1] * other[1][at] + row[2] * other[2][at])));
}

/** The inverse; null where there is none. */
export function inverse([[a, b, c], [d, e, f], [g, i, j]]) {
  const one = e * j - f * i, two = f * g - d * j, three = d * i - e * g;
  const determinant = a * one + b * two + c * three;
  if (!Number.isFinite(determinant) || Math.abs(determinant) < 1e-12) return null;
  return [[one, c * i - b * j, b * f - c * e], [two, a * j - c * g, c * d - a * f], [three, b * g - a * i, a * e - b * d]]
    .map(row => row.map(value => value / determinant));
}

export function moved([[a, b, c], [d, e, f], [g, i, j]], x, y) {
  const w = g * x + i * y + j;
  return [(a * x + b * y + c) / w, (d * x + e * y + f) / w];
}

/** The matrix as a CSS transform of an element with its origin at the top left. */
export function asTransform([[a, b, c], [d, e, f], [g, i, j]]) {
  return `matrix3d(${[a, d, 0, g, b, e, 0, i, 0, 0, 1, 0, c, f, 0, j].join(",")})`;
}

/** Whether the matrix keeps the whole rectangle in front of the viewer, so that it can be shown. */
export function isDrawable(matrix, width, height) {
  const signs = [[0, 0], [width, 0], [0, height], [width, height]].map(([x, y]) => Math.sign(matrix[2][0] * x + matrix[2][1] * y + matrix[2][2]));
  return signs.every(sign => sign !== 0 && sign === signs[0]);
}

const LONG_SIDE = 1000;
/** A difference of shares that says nothing of which picture shows more. */
const NEARLY = 0.02;

/** Units in which a picture is laid out: its long side is 1000 of them. */
export function units({width, height}) {
  const scale = LONG_SIDE / Math.max(width, height);
  return {width: width * scale, height: height * scale, scale};
}

/**
 * Both pictures in one frame: that of the query, or of the image where it shows more.
 *
 * Returns the frame's sides in units, `of` ("query" or "image") whose frame it is, each picture's
 * matrix from its own units to the frame's, and whether they are aligned. Pictures without a
 * homography are fitted into the same frame, centred.
 */
export function commonFrame({query, image, homography, overlap}) {
  const of = overlap && overlap[0] > overlap[1] + NEARLY ? "image" : "query";
  const base = of === "query" ? query : image, other = of === "query" ? image : query;
  const frame = units(base), own = units(other);
  const given = homography && (of === "query" ? inverse(homography) : homography);
  const isAligned = Boolean(given && isDrawable(given, other.width, other.height));
  const matrix = isAligned ? product(scaling(frame.scale), given, scaling(1 / own.scale)) : fitted(own, frame);
  return {frame, of, isAligned, query: of === "query" ? IDENTITY : matrix, image: of === "image" ? IDENTITY : matrix};
}

function fitted(own, frame) {
  const scale = Math.min(frame.width / own.width, frame.height / own.height);
  return product(moving((frame.width - scale * own.width) / 2, (frame.height - scale * own.height) / 2), scaling(scale));
}
