import fc from 'fast-check';

/** Where a text ends by the definition of stop: at the first character that completes one, before the longest that it completes. */
export function endOf(text: string, stop: readonly string[]): number | undefined {
  for (let end = 1; end <= text.length; end++) {
    const complete = stop.filter((word) => text.slice(0, end).endsWith(word));
    if (complete.length > 0) return end - Math.max(...complete.map((word) => word.length));
  }
  return undefined;
}

/** Texts in pieces, and stop strings for them: two letters, so that stop strings overlap themselves and each other, and false starts are common. */
export const texts = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c', '😀'), maxLength: 4 }), { minLength: 1, maxLength: 20 });
export const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 5 }), { maxLength: 3 });
