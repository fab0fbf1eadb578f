import type { Divergence, OpDifference, Part, TraceDifference } from './compare.ts';
import { count, factsOf, small, toleranceLine } from './report_text.ts';

const LISTED = 12;
const STYLE = `
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5d6873; --page: #ffffff; --line: #d9dee3;
  --agrees: 86, 130, 163; --follows: 214, 150, 32; --diverges: 205, 52, 58; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --dim: #98a3ae; --page: #14181c; --line: #323a42; } }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, dl { max-width: 50rem; } h2, p, dl { overflow-wrap: anywhere; } .dim { color: var(--dim); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: .5rem 0; } dt { color: var(--dim); } dd { margin: 0; }
.badge { padding: .1em .6em; border-radius: 1em; color: #fff; } .scroll { overflow-x: auto; }
.badge.same { background: #2b7a4b; } .badge.diverged { background: rgb(var(--diverges)); } .badge.not { background: #6b5a1e; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th { font-weight: normal; text-align: left; white-space: nowrap; padding: .1rem .6rem .1rem 0; } thead th { color: var(--dim); }
td { padding: .1rem .6rem; text-align: right; white-space: nowrap; } tbody th { position: sticky; left: 0; background: var(--page); }
.map td { padding: .1rem; min-width: 1.9rem; text-align: center; border: 1px solid var(--page); border-radius: 4px; }
.map thead th { text-align: center; padding: 0; }
.agrees { background: rgba(var(--agrees), var(--depth)); } .follows { background: rgba(var(--follows), var(--depth)); }
.diverges { background: rgba(var(--diverges), var(--depth)); font-weight: bold; } .map td.first { outline: 2px solid var(--ink); }
.columns { display: flex; flex-wrap: wrap; gap: 0 3rem; } .columns > div { max-width: 100%; } svg { display: block; } svg rect { fill: rgb(var(--agrees)); }
svg.beyond rect { fill: rgb(var(--diverges)); } details { margin-top: 2rem; } summary { cursor: pointer; }
`;

/**
 * What two traces differ in as one page that needs nothing else: a map of all ops and layers, worst heads and tokens, distances in ulp.
 * Every name comes from a file and is escaped.
 */
export function reportHtml(diff: TraceDifference): string {
  const { outcome, precision, ops, first } = diff;
  const parts = [
    `<h1>Traces: <span class="badge ${outcome === 'not comparable' ? 'not' : outcome}">${outcome}</span></h1>`,
    facts([
      ['A', origin(diff.a)],
      ['B', origin(diff.b)],
    ]),
    precision === null ? '' : `<p class="dim">${escaped(toleranceLine(precision))}</p>`,
    ...diff.notices.map((notice) => `<p>${escaped(notice)}</p>`),
    ...diff.problems.map(
      ({ where, expected, found, fix }) => `<p>${escaped(`${where}: expected ${expected}, found ${found}. ${fix}`)}</p>`,
    ),
    first === null ? '' : divergence(first),
  ];
  if (ops.length > 0) parts.push(map(ops, first), worst(ops), histograms(ops), table(ops));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Traces: ${outcome}</title>
<style>${STYLE}</style>
</head>
<body>
${parts.filter((part) => part !== '').join('\n')}
</body>
</html>
`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function origin({ path, metadata }: TraceDifference['a']): string {
  const said = [metadata.producer, metadata.precision, metadata.kernels, metadata.mode].filter((text) => text !== undefined);
  return `${path}: ${said.join(', ')}`;
}

function facts(rows: readonly (readonly [string, string])[]): string {
  return `<dl>${rows.map(([name, fact]) => `<dt>${escaped(name)}</dt><dd>${escaped(fact)}</dd>`).join('')}</dl>`;
}

function divergence(first: Divergence): string {
  const { difference, by_position, by_head } = first;
  const charts = [
    by_position.length === 0
      ? ''
      : `<div><p class="dim">by token, 0 to ${by_position.length - 1}; 1e-8 to 1</p>${bars(by_position, difference.bound)}</div>`,
    by_head === null
      ? ''
      : `<div><p class="dim">by head, 0 to ${by_head.length - 1}; 1e-8 to 1</p>${bars(by_head, difference.bound)}</div>`,
  ];
  return `<h2>First divergence: ${escaped(difference.name)}</h2>${facts(factsOf(first))}<div class="columns">${charts.join('')}</div>`;
}

/** Relative RMS of the parts, on a logarithmic scale from 1e-8 at the foot to 1 at the top. */
function bars(parts: readonly number[], bound: number): string {
  const width = Math.max(2, Math.min(12, Math.floor(480 / parts.length)));
  const rects = parts.map((value, i) => {
    const height = Math.round(64 * depth(value)) + 1;
    return `<rect x="${i * width}" y="${66 - height}" width="${width - 1}" height="${height}"><title>${i}: ${small(value)}</title></rect>`;
  });
  const all = parts.some((value) => !(value <= bound)) ? ' class="beyond"' : '';
  return `<div class="scroll"><svg${all} width="${parts.length * width}" height="66" role="img">${rects.join('')}</svg></div>`;
}

/** 0 for 1e-8 or less, 1 for 1 or more. */
function depth(relative: number): number {
  return relative === 0 ? 0 : Math.min(1, Math.max(0, (Math.log10(relative) + 8) / 8));
}

/** A row for each op, a column for each layer, in a cell the decimal exponent of the relative RMS. */
function map(ops: readonly OpDifference[], first: Divergence | null): string {
  const layers = [...new Set(ops.flatMap(({ layer }) => (layer === null ? [] : [layer])))].sort((a, b) => a - b);
  const cell = (difference: OpDifference | undefined) => {
    if (difference === undefined) return '<td></td>';
    const { name, relative_rms, bound, max_ulp, verdict } = difference;
    const title = `${name}: relative RMS ${small(relative_rms)}, bound ${small(bound)}, at most ${count(max_ulp)} ulp, ${verdict}`;
    const mark = name === first?.difference.name ? ' first' : '';
    const style = `--depth: ${(0.12 + 0.58 * depth(relative_rms)).toFixed(2)}`;
    return `<td class="${verdict}${mark}" style="${style}" title="${escaped(title)}">${exponent(relative_rms)}</td>`;
  };
  const row = (op: string, cells: readonly (OpDifference | undefined)[]) =>
    `<tr><th>${escaped(label(op))}</th>${cells.map(cell).join('')}</tr>`;
  const within = ops.filter(({ layer }) => layer !== null);
  const terms = [...new Set(within.map(({ op }) => op))].sort((a, b) => stage(a) - stage(b));
  const rows = terms.map((op) =>
    row(
      op,
      layers.map((layer) => within.find((other) => other.op === op && other.layer === layer)),
    ),
  );
  const outside = (before: boolean) =>
    ops.filter(({ layer, name }) => layer === null && (name === 'model.embed_tokens') === before).map((op) => row(op.name, [op]));
  return `<h2>Ops and layers</h2>
<p class="dim">Each number is the decimal exponent of the relative RMS. Blue agrees, amber follows from the inputs of the op, red diverges by itself.</p>
<div class="scroll"><table class="map"><thead><tr><th></th>${layers.map((layer) => `<th>${layer}</th>`).join('')}</tr></thead>
<tbody>${[...outside(true), ...rows, ...outside(false)].join('\n')}</tbody></table></div>`;
}

function label(op: string): string {
  return op === '' ? 'residual stream' : op;
}

/** Both kinds of layers in one order: the mixers, then what they share. */
function stage(op: string): number {
  const order = [/^model\.embed/, /^(linear_attn\.|input_)/, /^self_attn\./, /^(post_attention|mlp)/, /^post_feedforward/, /^$/];
  const at = order.findIndex((pattern) => pattern.test(op));
  return at < 0 ? order.length : at;
}

function exponent(relative: number): string {
  return relative === 0 ? '=' : Number.isFinite(relative) ? String(Math.floor(Math.log10(relative))).replace('-', '−') : '∞';
}

function worst(ops: readonly OpDifference[]): string {
  const list = (kind: string, partOf: (op: OpDifference) => Part | null) => {
    const parts = ops.flatMap((op) => {
      const part = partOf(op);
      return part === null || part.relative_rms === 0 ? [] : [{ name: op.name, ...part }];
    });
    const rows = parts
      .sort((a, b) => b.relative_rms - a.relative_rms)
      .slice(0, LISTED)
      .map(({ name, index, relative_rms }) => `<tr><th>${escaped(name)}</th><td>${index}</td><td>${small(relative_rms)}</td></tr>`);
    const head = `<thead><tr><th>op</th><th>${kind}</th><th>relative RMS</th></tr></thead>`;
    return `<div class="scroll"><h2>Worst ${kind}s</h2><table>${head}<tbody>${rows.join('')}</tbody></table></div>`;
  };
  return `<div class="columns">${list('head', (op) => op.worst_head)}${list('token', (op) => op.worst_position)}</div>`;
}

/** Of each op over all layers, how many elements are how far apart. */
function histograms(ops: readonly OpDifference[]): string {
  const counts = new Map<string, number[]>();
  for (const { op, ulp_histogram } of ops) {
    const sums = counts.get(op) ?? [];
    ulp_histogram.forEach((elements, bin) => {
      sums[bin] = (sums[bin] ?? 0) + elements;
    });
    counts.set(op, sums);
  }
  const bins = Math.max(...[...counts.values()].map((sums) => sums.length));
  const sorted = [...counts].sort(([a], [b]) => stage(a) - stage(b));
  const rows = sorted.map(([op, sums]) => {
    const all = sums.reduce((total, elements) => total + elements, 0);
    const most = Math.max(...sums);
    const rects = sums.map((elements, bin) => {
      const height = elements === 0 ? 0 : Math.max(1, Math.round((22 * elements) / most));
      const range = bin === 0 ? 'equal' : `${2 ** (bin - 1)} ulp or more`;
      return `<rect x="${bin * 10}" y="${22 - height}" width="9" height="${height}"><title>${range}: ${elements} of ${all}</title></rect>`;
    });
    return `<tr><th>${escaped(label(op))}</th><td><svg width="${bins * 10}" height="22" role="img">${rects.join('')}</svg></td></tr>`;
  });
  const axis = `<svg width="${bins * 10}" height="14"><text x="0" y="11" font-size="10" fill="currentColor">0</text>${Array.from(
    { length: Math.floor(bins / 5) },
    (_, i) => `<text x="${(i + 1) * 50}" y="11" font-size="10" fill="currentColor">2${superscript(5 * (i + 1) - 1)}</text>`,
  ).join('')}</svg>`;
  return `<h2>Distances in ulp</h2><p class="dim">How many elements are equal, 1, 2 to 3, 4 to 7, … units in the last place apart; each row has its own scale.</p>
<div class="scroll"><table><tbody>${rows.join('\n')}<tr><th></th><td>${axis}</td></tr></tbody></table></div>`;
}

function superscript(n: number): string {
  return [...String(n)].map((digit) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(digit)]).join('');
}

function table(ops: readonly OpDifference[]): string {
  const rows = ops.map(({ name, relative_rms, bound, max_ulp, verdict }) => {
    return `<tr><th>${escaped(name)}</th><td>${small(relative_rms)}</td><td>${small(bound)}</td><td>${count(max_ulp)}</td><td>${verdict}</td></tr>`;
  });
  const head = '<thead><tr><th>op</th><th>relative RMS</th><th>bound</th><th>largest ulp</th><th></th></tr></thead>';
  return `<details><summary>All ${ops.length} intermediates in the order of computation</summary>
<div class="scroll"><table>${head}<tbody>${rows.join('\n')}</tbody></table></div></details>`;
}
