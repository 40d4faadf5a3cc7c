// Charts, drawn by uPlot (vendor/uplot). Colours come from the style sheet, so they follow light and dark.

import { h, tell } from './dom.js';

const { uPlot } = window;
const drawn = new Set();
const dark = matchMedia('(prefers-color-scheme: dark)');
dark.addEventListener('change', () => drawn.forEach((chart) => chart.again()));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** The colours of what is told apart, and of what there is none left for. */
export const PALETTE = ['c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8'];
export const REST = 'rest';

const clock = (values, step) =>
  values.map((at) => new Date(at * 1000).toLocaleTimeString('en-GB', step < 60 ? {} : { hour: '2-digit', minute: '2-digit' }));

/**
 * A chart in `root`, as wide as that. `options(colour)` are those of uPlot but for its size; they are asked
 * for anew when the colours change, and when `draw` is told that it is `of` other lines than before. `close` when it is
 * no longer shown.
 */
function chart(root, height, options) {
  let plot;
  let data;
  let drawnOf;
  root.style.height = `${height}px`;
  const make = () => {
    plot?.destroy();
    plot = new uPlot({ ...options(colour), width: Math.max(root.clientWidth, 40), height }, data, root);
  };
  const resized = new ResizeObserver(() => plot?.setSize({ width: Math.max(root.clientWidth, 40), height }));
  resized.observe(root);
  const self = {
    root,
    again: () => data && make(),
    draw(next, of = next.length) {
      const alike = drawnOf === of;
      drawnOf = of;
      data = next;
      root.querySelector('.empty')?.remove();
      root.dataset.samples = data[0].length;
      if (plot && alike) plot.setData(data);
      else if (root.isConnected) make();
    },
    /** Says in words why there is nothing to draw. */
    empty(words) {
      plot?.destroy();
      plot = data = undefined;
      root.dataset.samples = 0;
      const said = root.querySelector('.empty') ?? root.appendChild(h('p', { class: 'empty' }));
      tell(said, words);
    },
    close() {
      resized.disconnect();
      plot?.destroy();
      drawn.delete(self);
    },
  };
  drawn.add(self);
  return self;
}

/** A line without words. `draw([times in s, values])`. */
export function sparkline(root, name = 'c1') {
  return chart(root, 26, (c) => ({
    cursor: { show: false },
    legend: { show: false },
    padding: [3, 1, 3, 1],
    scales: { y: { range: (_, low, high) => [0, Math.max(high, 1)] } },
    axes: [{ show: false }, { show: false }],
    series: [{}, { stroke: c(name), width: 1.5, fill: c(`${name}-fill`), points: { show: false } }],
  }));
}

const font = '11px system-ui, sans-serif';

/**
 * Lines over time, with axes. `lines()` are `{ label, name, fill }`; `span` is how much of the past is shown, in s;
 * `marks()` are `{ at, label }`, in s. `draw([times, values…])`.
 */
export function timeline(root, { height = 168, span, lines, marks = () => [], value }) {
  return chart(root, height, (c) => {
    const axis = {
      stroke: c('faint'),
      font,
      grid: { stroke: c('grid'), width: 1 },
      ticks: { show: false },
    };
    return {
      cursor: { y: false, points: { size: 6 } },
      legend: { show: false },
      padding: [10, 26, 0, 0],
      scales: {
        x: { range: (plot) => range(plot.data[0], span) },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, space: 80, size: 24, values: (_, at, __, ___, step) => clock(at, step) },
        { ...axis, size: labelled, values: (_, all) => all.map(value) },
      ],
      series: [{}, ...lines().map(({ label, name, fill }) => ({
        label,
        stroke: c(name),
        width: 1.5,
        fill: fill ? c(`${name}-fill`) : undefined,
        points: { show: false },
      }))],
      hooks: { draw: [(plot) => drawMarks(plot, marks(), c)] },
    };
  });
}

/** How wide an axis is that holds its longest label, in px. It is asked again with the labels that fit then. */
function labelled(plot, labels, index, round) {
  const axis = plot.axes[index];
  if (round > 1) return axis._size;
  plot.ctx.font = axis.font[0];
  const widths = (labels ?? []).map((label) => plot.ctx.measureText(label).width / devicePixelRatio);
  return Math.ceil(Math.max(AXIS_MIN, ...widths) + axis.gap + AXIS_MARGIN);
}

/** The least width of labels, and what is left free beside them, in px. */
const AXIS_MIN = 30;
const AXIS_MARGIN = 8;

/** The least of the past that is shown, in s. */
const SPAN_MIN = 10;

function range(times, span) {
  const end = times.at(-1) ?? Date.now() / 1000;
  const begin = Math.min(times[0] ?? end, end - SPAN_MIN);
  return [Math.max(end - span, begin), end];
}

function drawMarks(plot, marks, c) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = c('accent');
  ctx.fillStyle = c('text');
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const { at, label } of marks) {
    const x = plot.valToPos(at, 'x', true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const isLeft = x > bbox.left + bbox.width / 2;
    ctx.textAlign = isLeft ? 'right' : 'left';
    ctx.fillText(label, x + (isLeft ? -5 : 5) * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
  }
  ctx.restore();
}
