import type { Divergence, OpDifference, TraceDifference } from './compare.ts';
import { GROWTH, OWN } from './tolerance.ts';

/** How a report marks up what it says; colours on a terminal, nothing in a file. */
export interface Marks {
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
}

/**
 * What two traces differ in, for a person: the outcome, the first divergence, what it looks like, and the table of the ops from there on.
 * @param visible spells out what a terminal would obey; the traces' own words come from strangers.
 */
export function reportText(diff: TraceDifference, marks: Marks, visible: (text: string) => string): string {
  const lines = [side('A', diff.a, marks, visible), side('B', diff.b, marks, visible)];
  if (diff.precision !== null) lines.push(marks.dim(toleranceLine(diff.precision)));
  for (const notice of diff.notices) lines.push(`notice     ${visible(notice)}`);
  for (const { where, expected, found, fix } of diff.problems) {
    lines.push(`${marks.bad('unlike')}     ${visible(`${where}: expected ${expected}, found ${found}. ${fix}`)}`);
  }
  lines.push('');
  if (diff.first !== null) lines.push(...divergenceLines(diff.first, marks), '', ...table(diff.ops, marks));
  else if (diff.outcome === 'same') lines.push(`${marks.good('same')}: ${sameness(diff.ops)}`);
  else if (diff.ops.length > 0) lines.push(`${marks.bad('not comparable')} in full; of what both hold, ${sameness(diff.ops)}`);
  else lines.push(marks.bad('not comparable'));
  return `${lines.join('\n')}\n`;
}

function side(name: string, { path, metadata }: TraceDifference['a'], { bold, dim }: Marks, visible: (text: string) => string): string {
  const said = [metadata.producer, metadata.precision, metadata.kernels, metadata.mode].filter((text) => text !== undefined);
  return `${bold(name)}          ${visible(path)}  ${dim(visible(said.join(', ')))}`;
}

/** The tolerance in one line. */
export function toleranceLine(precision: keyof typeof OWN): string {
  const bounds = Object.entries(OWN[precision]).map(([kind, bound]) => `${kind} ${bound === 0 ? '0' : bound.toExponential(0)}`);
  return `tolerance  ${precision}, relative RMS: ${bounds.join(', ')}, and ${GROWTH} times that of the inputs`;
}

function sameness(ops: readonly OpDifference[]): string {
  const furthest = ops.reduce((worst, op) => (op.relative_rms > worst.relative_rms ? op : worst));
  const agree = ops.filter(({ verdict }) => verdict === 'agrees').length;
  const follow = agree < ops.length ? `, ${ops.length - agree} follow from their inputs` : '';
  return `${agree} intermediates agree within the tolerance${follow}; furthest ${furthest.name}, relative RMS ${small(furthest.relative_rms)}`;
}

function divergenceLines(divergence: Divergence, { bold, bad }: Marks): string[] {
  const { name, layer, op } = divergence.difference;
  const where = layer === null ? bold(name) : `layer ${layer}, ${bold(op === '' ? 'residual stream' : op)}`;
  return [`${bad('diverged')}: ${where}`, ...factsOf(divergence).map(([name, fact]) => `  ${name.padEnd(8)} ${fact}`)];
}

/** What is to be said of the place where traces part. */
export function factsOf({
  difference,
  position,
  head,
  element,
  a,
  b,
  ulp,
  by_position,
  by_head,
  not_finite,
  cause,
}: Divergence): [string, string][] {
  const { relative_rms, bound, inputs_relative_rms } = difference;
  const place = [position === null ? '' : `token ${position}`, head === null ? '' : `head ${head}`, `element ${element}`];
  const beyond = (parts: readonly number[], of: string) => `${parts.filter((error) => !(error <= bound)).length} of ${parts.length} ${of}`;
  const extent = [by_position.length === 0 ? '' : beyond(by_position, 'tokens'), by_head === null ? '' : beyond(by_head, 'heads')];
  const facts: [string, string][] = [
    ['at', `${given(place)}: A ${shown(a)}, B ${shown(b)}, ${count(ulp)} ulp`],
    ['size', `relative RMS ${small(relative_rms)}, bound ${small(bound)}; its inputs differ by ${small(inputs_relative_rms)}`],
  ];
  if (given(extent) !== '') facts.push(['extent', `beyond the bound in ${given(extent)}`]);
  if (not_finite !== null) {
    const { side, inputs_finite } = not_finite;
    const inputs = inputs_finite === null ? 'none of its inputs is shown' : `its inputs are ${inputs_finite ? '' : 'not '}finite`;
    return [
      ...facts,
      ['looks', `${side} is ${side === 'A' ? a : b} from here${position === null ? '' : `, first at token ${position}`}; ${inputs}`],
    ];
  }
  const certainty = cause?.confirmed ? 'confirmed' : 'likely';
  const looks = cause
    ? `${cause.side} ${cause.what} (${certainty}: recomputed so, it agrees to ${small(cause.relative_rms)})`
    : 'none of the known mistakes';
  return [...facts, ['looks', looks]];
}

function table(ops: readonly OpDifference[], { bold, dim, bad }: Marks): string[] {
  const shown = ops.slice(ops.findIndex(({ verdict }) => verdict === 'diverges'));
  const width = Math.max(...shown.map(({ name }) => name.length));
  const row = (name: string, rms: string, bound: string, ulp: string, verdict: string) =>
    `${name.padEnd(width)}${rms.padStart(10)}${bound.padStart(10)}${ulp.padStart(12)}  ${verdict}`;
  return [
    bold(row('op', 'rel RMS', 'bound', 'max ulp', '')).trimEnd(),
    ...shown.map(({ name, relative_rms, bound, max_ulp, verdict }) => {
      const text = row(name, small(relative_rms), small(bound), count(max_ulp), verdict);
      return verdict === 'diverges' ? bad(text) : verdict === 'agrees' ? dim(text) : text;
    }),
  ];
}

function given(parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join(', ');
}

/** With the digits that an f32 has. */
function shown(value: number): string {
  return String(Number(value.toPrecision(9)));
}

/** 0.000012345 as 1.2e-5. */
export function small(value: number): string {
  return value === 0 ? '0' : Number.isFinite(value) ? value.toExponential(1) : 'infinite';
}

/** A count of ulp. */
export function count(ulp: number): string {
  return Number.isFinite(ulp) ? ulp.toLocaleString('en') : 'infinite';
}
