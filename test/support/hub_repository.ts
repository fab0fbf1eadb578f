import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** A file at a commit. */
export interface HubFile {
  readonly path: string;
  readonly content: Uint8Array;
  /** Name of the git blob: of the content, or of the pointer to it where Git LFS keeps it. */
  readonly oid: string;
  /** Of the content, where Git LFS keeps it; else null. */
  readonly sha256: string | null;
}

/** Who may read. `gated`: everyone sees that it is there, those on the list read it. */
export type Access = 'public' | 'gated' | 'private';

/** What the scripted hub serves under one id. */
export interface HubRepository {
  /** `org/name`. */
  readonly id: string;
  readonly access: Access;
  /** Commits by branch or tag. */
  readonly refs: ReadonlyMap<string, string>;
  readonly commits: ReadonlyMap<string, readonly HubFile[]>;
}

/** Files by path. A path may be what no git repository holds, such as `../evil`. */
export type Files = Readonly<Record<string, Uint8Array | string>>;

export interface RepositoryOptions {
  readonly access?: Access;
  /** What Git LFS keeps. Default: what is larger than 10 MB, as on the Hub, and all safetensors files. */
  readonly lfs?: (path: string, byteLength: number) => boolean;
}

const LFS_ABOVE_BYTES = 10e6;

/** A repository with a commit for each of its revisions. */
export function hubRepository(id: string, revisions: Readonly<Record<string, Files>>, options: RepositoryOptions = {}): HubRepository {
  const { access = 'public', lfs = (path, byteLength) => path.endsWith('.safetensors') || byteLength > LFS_ABOVE_BYTES } = options;
  const commits = new Map<string, readonly HubFile[]>();
  const refs = new Map<string, string>();
  for (const [revision, contents] of Object.entries(revisions)) {
    const files = Object.entries(contents)
      .map(([path, content]) => hubFile(path, Buffer.from(content as Uint8Array), lfs))
      .sort((a, b) => (a.path < b.path ? -1 : 1));
    const commit = sha1(`commit ${id} ${revision}\n${files.map(({ path, oid }) => `${oid} ${path}\n`).join('')}`);
    commits.set(commit, files);
    refs.set(revision, commit);
  }
  return { id, access, refs, commits };
}

/** The files of a folder; those for which `keep` is false are left out. */
export function filesOf(folder: string, keep: (path: string) => boolean = () => true): Record<string, Uint8Array> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = entries.map((entry) => join(entry.parentPath, entry.name).slice(folder.replace(/\/$/, '').length + 1));
  return Object.fromEntries(paths.filter(keep).map((path) => [path, readFileSync(join(folder, path))]));
}

/** What the cache calls the file: its sha256 where Git LFS keeps it, else its git blob. */
export function etagOf({ sha256, oid }: HubFile): string {
  return sha256 ?? oid;
}

/** The text that git holds in the place of a file of Git LFS. */
export function lfsPointer(sha256: string, byteLength: number): string {
  return `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${byteLength}\n`;
}

function hubFile(path: string, content: Buffer, lfs: (path: string, byteLength: number) => boolean): HubFile {
  if (!lfs(path, content.byteLength)) return { path, content, oid: gitBlob(content), sha256: null };
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { path, content, oid: gitBlob(Buffer.from(lfsPointer(sha256, content.byteLength))), sha256 };
}

function gitBlob(content: Buffer): string {
  return createHash('sha1').update(`blob ${content.byteLength}\0`).update(content).digest('hex');
}

function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex');
}
