import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { verifyCached } from '../../src/hub/cached_models.ts';
import { pull } from '../../src/hub/pull.ts';
import { requireModelId } from '../../src/hub/model_id.ts';
import { files, model, type Outcome, type Place, type Row, rangesOf, SHARD, SHARD_BYTES, sentBytes } from './fault_table.ts';
import { script } from './hub_faults.ts';
import { etagOf } from './hub_repository.ts';

const commit = model.refs.get('main')!;
const etag = etagOf(model.commits.get(commit)!.find(({ path }) => path === SHARD)!);
const HALF = SHARD_BYTES >> 1;
const blobOf = ({ folder }: Place) => join(folder, 'blobs', etag);
const linkOf = ({ folder }: Place) => join(folder, 'snapshots', commit, SHARD);
const incompleteOf = (place: Place) => `${blobOf(place)}.olmo-hybrid.incomplete`;

/** Everything is in the cache, and then something happens to it. */
const pulledThen = (change: (place: Place) => void | Promise<void>): NonNullable<Row['before']> => {
  return async (place) => {
    await pull(requireModelId('org/name'), { environment: place.environment });
    await change(place);
    return null;
  };
};
/** There is this much of the shard. */
const begun = (content: Uint8Array, name = incompleteOf): NonNullable<Row['before']> => {
  return (place) => {
    mkdirSync(join(place.folder, 'blobs'), { recursive: true });
    writeFileSync(name(place), content);
    return null;
  };
};
const bytesSent = (expected: number) => (outcome: Outcome) => expect(sentBytes(outcome.requests, SHARD)).toBe(expected);
const onlyListed = ({ requests }: Outcome) => expect(requests.map(({ kind }) => kind)).toEqual(['revision', 'tree']);
const whole = files[SHARD]!;

/** A flipped bit, as disks make them: the size is as it was. */
function flipBit(path: string): void {
  const content = readFileSync(path);
  content[HALF]! ^= 4;
  writeFileSync(path, content);
}

/** `cache verify`. */
async function damagedFiles({ environment }: Place): Promise<string[]> {
  const { damaged } = await verifyCached({ repository: 'org/name' }, environment, new AbortController().signal, () => {});
  return damaged.map(({ path }) => path);
}

/** A file system of its own for the cache. @returns why there is none */
function mounted({ cache }: Place, bytes: number): string | null {
  mkdirSync(cache);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', cache], { stdio: 'ignore' });
    return null;
  } catch {
    return 'mounting a tmpfs needs Linux and root';
  }
}

/** A cache whose right to be written can be taken away. */
function lockable(place: Place): string | null {
  if (process.getuid?.() === 0) return mounted(place, 1 << 20);
  mkdirSync(place.cache);
  return null;
}

function unmounted({ cache }: Place): void {
  try {
    execFileSync('umount', ['-l', cache], { stdio: 'ignore' });
  } catch {} // it was not mounted
}

/** Takes the right to write from the cache: root needs a file system for that, others do not. @returns why it is not possible */
function readOnly(place: Place): string | null {
  if (process.getuid?.() !== 0) {
    chmodSync(place.cache, 0o555);
    return null;
  }
  try {
    execFileSync('mount', ['-o', 'remount,ro', place.cache], { stdio: 'ignore' });
    return null;
  } catch {
    return 'root may write where it is not allowed to';
  }
}

function writable({ cache }: Place): void {
  if (process.getuid?.() === 0) execFileSync('mount', ['-o', 'remount,rw', cache]);
  else chmodSync(cache, 0o755);
}

const LEFT_BYTES = 20_000;
const ballastOf = ({ cache }: Place) => join(cache, 'CACHEDIR.TAG'); // a name that a cache may have

function fillUp(place: Place): void {
  const { bavail, bsize } = statfsSync(place.cache);
  writeFileSync(ballastOf(place), new Uint8Array(Math.max(0, bavail * bsize - LEFT_BYTES)));
}

/** What the disk and others do to the cache. */
export const cache: readonly Row[] = [
  {
    fault: 'the first half of a file from an earlier call',
    must: 'only the rest is fetched',
    before: begun(whole.subarray(0, HALF)),
    check: ({ requests }) => {
      expect(rangesOf(requests, SHARD)).toEqual([`bytes=${HALF}-${SHARD_BYTES - 1}`]);
      bytesSent(HALF)({ requests } as Outcome);
    },
  },
  { fault: 'all of a file from an earlier call, unchecked', must: 'nothing is fetched', before: begun(whole), check: bytesSent(0) },
  {
    fault: 'all of a file from an earlier call, one bit wrong',
    must: 'found by sha256, fetched anew',
    before: begun(whole.map((byte, i) => (i === 9 ? byte ^ 1 : byte))),
    check: bytesSent(SHARD_BYTES),
  },
  {
    fault: 'a beginning that is of another file',
    must: 'found by sha256, fetched anew',
    before: begun(new Uint8Array(HALF)),
    check: bytesSent(SHARD_BYTES - HALF + SHARD_BYTES),
  },
  {
    fault: 'a piece that another process, which has lost the lock, writes meanwhile',
    must: 'cut off, only the rest is fetched',
    before: begun(whole.subarray(0, HALF)),
    script: (place) =>
      script({
        kind: 'cdn',
        path: SHARD,
        fault: (answer) => {
          appendFileSync(incompleteOf(place), whole.subarray(HALF, HALF + 1000));
          return answer;
        },
      }),
    check: bytesSent(SHARD_BYTES - HALF),
  },
  {
    fault: 'more than the whole file from an earlier call',
    must: 'fetched anew',
    before: begun(new Uint8Array(SHARD_BYTES + 1)),
    check: bytesSent(SHARD_BYTES),
  },
  {
    fault: 'a flipped bit in the cache',
    must: '`cache verify` finds and removes the file, pull fetches it anew',
    before: pulledThen(async (place) => {
      flipBit(blobOf(place));
      expect(await damagedFiles(place)).toEqual([blobOf(place)]);
    }),
    check: bytesSent(SHARD_BYTES),
  },
  {
    fault: 'a file that was cut',
    must: 'fetched anew',
    before: pulledThen((place) => truncateSync(blobOf(place), HALF)),
    check: bytesSent(SHARD_BYTES),
  },
  {
    fault: 'a blob that is gone',
    must: 'fetched anew',
    before: pulledThen((place) => rmSync(blobOf(place))),
    check: bytesSent(SHARD_BYTES),
  },
  {
    fault: 'a snapshot that is gone',
    must: 'linked anew, nothing fetched',
    before: pulledThen(({ folder }) => rmSync(join(folder, 'snapshots'), { recursive: true })),
    check: onlyListed,
  },
  {
    fault: 'a link to another place',
    must: 'linked anew',
    before: pulledThen((place) => {
      rmSync(linkOf(place));
      symlinkSync('/etc/hostname', linkOf(place));
    }),
    check: onlyListed,
  },
  {
    fault: 'a copy in the place of a link',
    must: 'left, or linked',
    before: pulledThen((place) => {
      rmSync(linkOf(place));
      writeFileSync(linkOf(place), whole);
    }),
    check: onlyListed,
  },
  {
    fault: 'a ref that is empty',
    must: 'written anew',
    before: pulledThen(({ folder }) => writeFileSync(join(folder, 'refs', 'main'), '')),
    check: onlyListed,
  },
  {
    fault: 'a cache that is a link',
    must: 'followed',
    before: ({ cache }) => {
      const real = join(cache, '..', 'real');
      mkdirSync(real);
      symlinkSync(real, cache);
      return null;
    },
  },
  {
    fault: 'a file in the place of the cache',
    must: 'refused',
    before: ({ cache }) => {
      writeFileSync(cache, '');
      return null;
    },
    refused: /cache/,
    forGood: true,
  },
  {
    fault: 'a folder in the place of a blob',
    must: 'refused',
    before: (place) => {
      mkdirSync(join(blobOf(place), 'x'), { recursive: true });
      return null;
    },
    refused: new RegExp(etag),
    forGood: true,
  },
  {
    fault: 'a disk that is too small',
    must: 'refused before the first byte of a shard',
    before: (place) => mounted(place, 160_000),
    after: unmounted,
    refused: /room for/,
    check: ({ requests }) => expect(sentBytes(requests, SHARD)).toBe(0),
    forGood: true,
  },
  {
    fault: 'a disk that fills up in the middle',
    must: 'refused, what has come is kept, the rest fetched later',
    before: (place) => mounted(place, 1 << 20),
    after: unmounted,
    script: (place) =>
      script({
        kind: 'cdn',
        path: SHARD,
        fault: (answer) => {
          fillUp(place);
          return answer;
        },
      }),
    refused: /full disk/,
    mend: (place) => rmSync(ballastOf(place)),
    check: (place) => expect(statSync(incompleteOf(place)).size).toBeGreaterThan(0),
  },
  { fault: 'a disk of 1 MB', must: 'enough for this model', before: (place) => mounted(place, 1 << 20), after: unmounted },
  {
    fault: 'a cache that is read only',
    must: 'refused',
    before: (place) => lockable(place) ?? readOnly(place),
    after: unmounted,
    refused: /read only|permission/,
    mend: writable,
  },
  {
    fault: 'a cache that is read only and has everything',
    must: 'enough',
    before: async (place) => lockable(place) ?? (await pulledThen(() => {})!(place)) ?? readOnly(place),
    after: unmounted,
    check: onlyListed,
    mend: writable,
  },
];
