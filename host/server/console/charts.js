// Charts, drawn by uPlot (vendor/uplot). Colours come from the style sheet, so they follow light and dark.

const { uPlot } = window;
const drawn = new Set();
const dark = matchMedia('(prefers-color-scheme: dark)');
dark.addEventListener('change', () => drawn.forEach((chart) => chart.again()));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** The colour of the n-th of several. */
export const PALETTE = ['c1', 'c2', 'c3', 'c4', 'c5', 'c6'];

const clock = (values, step) =>
  values.map((at) => new Date(at * 1000).toLocaleTimeString('en-GB', step < 60 ? {} : { hour: '2-digit', minute: '2-digit' }));

/**
 * A chart in `root`, as wide as that. `options(colour)` are those of uPlot but for its size; they are asked
 * for anew when the colours change. `close` when it is no longer shown.
 */
function chart(root, height, options) {
  let plot;
  let data;
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
    draw(next) {
      const alike = data?.length === next.length;
      data = next;
      root.dataset.samples = data[0].length;
      if (plot && alike) plot.setData(data);
      else if (root.isConnected) make();
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
      padding: [10, 8, 0, 0],
      scales: {
        x: { range: (plot) => range(plot.data[0], span) },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, space: 80, size: 24, values: (_, at, __, ___, step) => clock(at, step) },
        { ...axis, size: 52, values: (_, all) => all.map(value) },
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
