// Word differences between two texts: a longest common subsequence of words.

const splitWords = (text) => text.split(/\s+/).filter((word) => word !== "");

// [[kind, word], …] with kind "same", "added" (in `text` alone) or "missing" (in `other` alone), in reading order.
function wordDifference(text, other) {
  const [a, b] = [splitWords(text), splitWords(other)];
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      found.push(["same", a[i]]);
      i += 1;
      j += 1;
    } else if (j < b.length && (i === a.length || length[i][j + 1] >= length[i + 1][j])) {
      found.push(["missing", b[j]]);
      j += 1;
    } else {
      found.push(["added", a[i]]);
      i += 1;
    }
  }
  return found;
}

const countChanges = (found) => found.filter(([kind]) => kind !== "same").length;

// The difference to the nearest of several texts; null where there is none to compare with.
function nearestDifference(text, others) {
  return (
    others.map((other) => wordDifference(text, other)).sort((a, b) => countChanges(a) - countChanges(b))[0] ?? null
  );
}

// A text with its differences marked: what is added in <ins>, what is missing in <del>.
function markedText(text, others, showMissing) {
  const found = nearestDifference(text, others);
  if (found === null) return [text];
  const tags = { added: "ins", missing: "del" };
  return found
    .filter(([kind]) => kind !== "missing" || showMissing)
    .flatMap(([kind, word]) => [kind === "same" ? word : el(tags[kind], {}, word), " "]);
}
