import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StopStrings } from '../src/stop_strings.ts';
import { endOf, stops, texts } from './support/stop_oracle.ts';

describe('stop strings', () => {
  test('the text ends where the whole text would be cut, however it arrives', () => {
    fc.assert(
      fc.property(texts, stops, (pieces, stop) => {
        const whole = pieces.join('');
        const stop_strings = new StopStrings(stop);
        let text = '';
        for (const piece of pieces) {
          text += stop_strings.push(piece);
          if (stop_strings.found) break;
        }
        text += stop_strings.flush();
        const end = endOf(whole, stop);
        expect(text).toBe(whole.slice(0, end));
        expect(stop_strings.found).toBe(end !== undefined);
      }),
      { numRuns: 2000 },
    );
  });

  test('no more is held back than a stop string may begin with', () => {
    fc.assert(
      fc.property(texts, stops, (pieces, stop) => {
        const stop_strings = new StopStrings(stop);
        let [pushed, text] = ['', ''];
        for (const piece of pieces) {
          pushed += piece;
          text += stop_strings.push(piece);
          if (stop_strings.found) return;
          const held = pushed.slice(text.length);
          expect(pushed.startsWith(text)).toBe(true);
          expect(held === '' || stop.some((candidate) => candidate.length > held.length && candidate.startsWith(held))).toBe(true);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
