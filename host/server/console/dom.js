// Elements. Whatever comes from messages becomes text here, and never markup.

/** An element: `on…` are listeners, `data` its data attributes, everything else attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'data') Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets the text of an element if it is another one: what is selected stays so. */
export function tell(element, text) {
  const told = String(text);
  if (element.textContent !== told) element.textContent = told;
  return element;
}

export const show = (element, shown) => {
  if (element.hidden === shown) element.hidden = !shown;
};

/** Fills an element anew, if what it is made of has changed since. */
export function fill(element, made, ...children) {
  const key = JSON.stringify(made);
  if (element.madeOf === key) return;
  element.madeOf = key;
  element.replaceChildren(...children.flat().map((child) => (typeof child === 'function' ? child() : child)));
  [...element.children].forEach((child) => label(child, element.titles));
}

/** Says at each cell of a row what its column is: on a narrow screen rows are cards, and the heads are not seen. */
function label(row, titles) {
  titles?.forEach((title, index) => {
    if (title && typeof title === 'string' && row.children[index]) row.children[index].dataset.label = title;
  });
}

/**
 * Keeps one child for each item, in order, and leaves alone those that stay: focus and selection do too.
 * `make` makes `{ root, update(item) }`.
 */
export function keep(parent, items, key, make) {
  parent.kept ??= new Map();
  const { kept } = parent;
  const keys = new Set(items.map(key));
  for (const [name, child] of kept) {
    if (keys.has(name)) continue;
    child.close?.();
    child.root.remove();
    kept.delete(name);
  }
  items.forEach((item, index) => {
    const name = key(item);
    if (!kept.has(name)) {
      kept.set(name, make(item));
      label(kept.get(name).root, parent.titles);
    }
    const child = kept.get(name);
    if (parent.children[index] !== child.root) parent.insertBefore(child.root, parent.children[index] ?? null);
    child.update(item);
  });
}

/** A panel with a heading. */
export function panel(title, { note, id, wide, actions } = {}, ...children) {
  const told = h('span', { class: 'faint note' }, note ?? '');
  const head = h('div', { class: 'head' }, h('h2', {}, title), told, actions);
  const root = h('section', { class: wide ? 'panel wide' : 'panel', id, 'aria-label': title }, head, ...children);
  return { root, note: told };
}

/** A table: `columns` are `[title, class]`. Rows come into `body` by `keep` or `fill`. */
export function table(name, columns) {
  const heads = columns.map(([title, kind]) => h('th', { scope: 'col', class: kind }, title));
  const body = h('tbody');
  body.titles = columns.map(([title]) => title);
  const root = h('div', { class: 'scroll' }, h('table', { class: 'cells', 'aria-label': name }, h('thead', {}, h('tr', {}, heads)), body));
  return { root, body };
}

/** A text in which `backticks` are round what is typed or named. */
export const marked = (text) => text.split('`').map((part, index) => (index % 2 ? h('code', {}, part) : part));

/** A list of names and what they are. */
export const facts = (pairs) =>
  h('dl', { class: 'facts' }, pairs.filter(Boolean).flatMap(([name, value]) => [
    h('dt', {}, name),
    h('dd', {}, value instanceof Node ? value : String(value ?? '–')),
  ]));

/** As `facts`, of texts that change: `update` takes the pairs, and leaves alone what stays. */
export function keptFacts() {
  const root = h('dl', { class: 'facts' });
  const pair = ([name]) => {
    const value = h('dd');
    return { root: h('div', {}, h('dt', {}, name), value), update: ([, text]) => tell(value, text) };
  };
  return { root, update: (pairs) => keep(root, pairs.filter(Boolean), ([name]) => name, pair) };
}

let silence;

/** Says something that has happened. */
export function say(text, isWrong = false) {
  const said = document.getElementById('said');
  said.textContent = text;
  said.classList.toggle('wrong', isWrong);
  said.classList.add('shown');
  clearTimeout(silence);
  silence = setTimeout(() => said.classList.remove('shown'), isWrong ? 12_000 : 6_000);
}
