import type { TraceDifference } from '../../src/diff/compare.ts';
import type { Mutant } from './mutant.ts';
import type { Effect } from './run.ts';

/** Largest error of a logit that the reference may make in these runs. */
export const REFERENCE_ERROR = 1e-13;

/** What a run of the gallery has found of one mistake. */
export interface Exhibit {
  readonly mutant: Mutant;
  readonly diff: TraceDifference;
  readonly effect: Effect;
  /** Laws of the kernel that the mistake breaks, of all that it has; null for a mistake of the wiring. */
  readonly broken: { readonly laws: readonly string[]; readonly of: number } | null;
}

export function firstOpIsRight({ mutant, diff }: Exhibit): boolean {
  return diff.first?.difference.name === mutant.op;
}

export function causeIsRight({ mutant, diff }: Exhibit): boolean {
  return diff.first?.cause != null && mutant.causes.includes(diff.first.cause.cause);
}

/** docs/gallery.md. */
export function page(exhibits: readonly Exhibit[]): string {
  const kernels = exhibits.filter(({ broken }) => broken !== null);
  const share = (part: readonly Exhibit[], whole: readonly Exhibit[]) => `${part.length} of ${whole.length}`;
  const wiring = exhibits.filter(({ broken }) => broken === null);
  const loud = wiring.filter(({ effect }) => effect.times_float32_error > 100);
  const killed = kernels.filter(({ broken }) => broken!.laws.length > 0);
  return `# A gallery of mistakes

${exhibits.length} mistakes that runtimes of this model make, or of models built like it. Each is made by itself in what is otherwise the float64 reference, and
run on the prompt of a golden model: [kernels](../test/gallery/kernel_mutants.ts), [wiring](../test/gallery/wiring_mutants.ts). Most shapes fit, few mistakes crash, and a text
of some tokens often reads well. This page is what \`npm run gallery\` found, word and number; \`npm test\` holds it to that.

| | |
|---|---|
| kernels whose mistake the [property kit](property_kit.md) finds | ${share(killed, kernels)} |
| mistakes of the wiring that move the logits by more than 100 times PyTorch's float32 error | ${share(loud, wiring)} |
| first op of which \`diff\` says that it is at fault: the right one | ${share(exhibits.filter(firstOpIsRight), exhibits)} |
| cause that \`diff\` names: the right one | ${share(exhibits.filter(causeIsRight), exhibits)} |

The size of a mistake is the largest change of a logit over the prompt, and the same over the error that PyTorch makes in float32. The reference without a
mistake is off by less than ${REFERENCE_ERROR}. These are tiny random models, whose weights were spread so that each mistake shows; in the trained 7B, which was not run
here, the same mistake may be louder or softer. "Flips" counts the positions whose likeliest next token is another one.

| mistake | first op | largest change | × PyTorch's error | flips |
|---|---|---|---|---|
${exhibits.map(row).join('\n')}

## In kernels

${kernels.map(section).join('\n\n')}

## In the wiring

${wiring.map(section).join('\n\n')}
`;
}

function row({ mutant, effect }: Exhibit): string {
  const op = mutant.op.replace(/^model\.layers\.\d+\./, '');
  const { max_change, times_float32_error, flipped, positions } = effect;
  const size = `${max_change.toPrecision(2)} | ${Number(times_float32_error.toPrecision(2)).toLocaleString('en')}`;
  return `| [${mutant.name}](#${mutant.name}) | \`${op}\` | ${size} | ${flipped} of ${positions} |`;
}

function section(exhibit: Exhibit): string {
  const { mutant, diff, effect, broken } = exhibit;
  const { first } = diff;
  const cause = first?.cause ? `${first.cause.side} ${first.cause.what} (\`${first.cause.cause}\`)` : 'no cause that it knows';
  const lines = [
    `### ${mutant.name}`,
    '',
    `**${mutant.bug}** ${mutant.effect}`,
    '',
    `- Seen: ${mutant.seen ?? 'no public report is known to us.'}`,
    `- \`diff\`: \`${first?.difference.name}\`${first?.position == null ? '' : `, token ${first.position}`}; ${cause}${causeIsRight(exhibit) ? '' : ' **(not found)**'}.`,
    `- Logits of \`${mutant.model}\`: largest change ${effect.max_change.toPrecision(3)}, ${Number(effect.times_float32_error.toPrecision(3)).toLocaleString('en')} times PyTorch's float32 error; ${effect.flipped} of ${effect.positions} flips.`,
  ];
  if (broken)
    lines.push(`- Property kit, \`${mutant.kernel}\`: ${broken.laws.length} of ${broken.of} laws broken: ${broken.laws.join('; ')}.`);
  return lines.join('\n');
}
