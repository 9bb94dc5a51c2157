// Making elements. Text only ever becomes a text node: nothing that a sample says is read as HTML.

// el("p", {class: "quiet"}, "text", child, …): attributes, `on…` listeners, and properties such as `checked`.
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && typeof value === "boolean") made[key] = value;
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const byId = (id) => document.getElementById(id);

function button(label, attributes, action) {
  return el("button", { type: "button", onclick: action, ...attributes }, label);
}

// The JSON in a block of the page, read when it is first asked for.
const readBlock = (() => {
  const held = new Map();
  return (id) => {
    if (!held.has(id)) {
      const block = byId(id);
      held.set(id, block === null ? null : JSON.parse(block.textContent));
    }
    return held.get(id);
  };
})();

// 21.4, 5.32, 0.0123: three digits, as in the tables that diffq prints.
function shortNumber(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(size >= 1000 ? 0 : 1);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.1 || size === 0) return value.toFixed(2);
  return value.toPrecision(2);
}

// `21.4 [20.6, 22.3]`; the interval is left out where there is none.
function shortInterval([value, low, high], bare = false) {
  const inner = `[${shortNumber(low)}, ${shortNumber(high)}]`;
  return bare || low === null || high === null ? shortNumber(value) : `${shortNumber(value)} ${inner}`;
}

// Copies text and says so on the button for a moment. Pages opened as files may have no clipboard: then by selection.
async function copyText(text, from) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    from.focus();
  }
  const before = from.textContent;
  if (from.dataset.busy) return;
  from.dataset.busy = "yes";
  from.textContent = done ? "copied" : "not allowed here";
  setTimeout(() => {
    from.textContent = before;
    delete from.dataset.busy;
  }, 1200);
}
