// Which points no other point dominates, for the axes that are chosen, among the points that are shown.

// +1 where more is better, −1 where less is; 0 where neither is.
const signOf = (name) => metricOf[name].sign;

// The numbers of the points on the front; empty where an axis has no better end.
function paretoFront(numbers) {
  const [sx, sy] = [signOf(state.x), signOf(state.y)];
  if (sx === 0 || sy === 0) return new Set();
  const rows = numbers
    .map((at) => [at, sx * figureOf(data.points[at], state.x)[0], sy * figureOf(data.points[at], state.y)[0]])
    .sort((a, b) => b[1] - a[1] || b[2] - a[2]);
  const found = new Set();
  let [best, bestX] = [-Infinity, Infinity];
  for (const [at, x, y] of rows) {
    if (y > best || (y === best && x === bestX)) {
      found.add(at);
      [best, bestX] = [y, x];
    }
  }
  return found;
}

// The corners of the border of what these points dominate, as [xs, ys].
function staircase(numbers) {
  const [sx, sy] = [signOf(state.x), signOf(state.y)];
  const corners = [...numbers]
    .map((at) => [figureOf(data.points[at], state.x)[0], figureOf(data.points[at], state.y)[0]])
    .sort((a, b) => sx * (a[0] - b[0]) || sy * (b[1] - a[1]));
  const [xs, ys] = [[], []];
  corners.forEach(([x, y], n) => {
    if (n > 0) {
      xs.push(corners[n - 1][0]);
      ys.push(y);
    }
    xs.push(x);
    ys.push(y);
  });
  return [xs, ys];
}

// The points that are drawn and may be on the front: null lines never are.
function drawnPoints() {
  return data.points.map((point, at) => at).filter((at) => isDrawn(data.points[at]) && !lineOf(data.points[at]).null);
}
