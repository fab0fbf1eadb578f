// How messages put amounts and lists.

/** `3.2 MB`, `14.8 GB`. */
export function gigabytes(bytes: number): string {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** `1 token`, `2 tokens`. */
export function counted(count: number, noun = 'token'): string {
  return count === 1 ? `1 ${noun}` : `${count} ${noun}s`;
}

/** The first `most` names, and how many there are besides. */
export function listed(names: readonly string[], most: number): string {
  const more = names.length - most;
  return `${names.slice(0, most).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}
