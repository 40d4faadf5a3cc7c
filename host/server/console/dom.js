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
    if (!kept.has(name)) kept.set(name, make(item));
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

/** A table: `columns` are `[title, class]`. */
export function table(label, columns) {
  const heads = columns.map(([title, kind]) => h('th', { scope: 'col', class: kind }, title));
  const body = h('tbody');
  const root = h('div', { class: 'scroll' }, h('table', { 'aria-label': label }, h('thead', {}, h('tr', {}, heads)), body));
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
