/**
 * Path of a file that comes with this package (Node only).
 * @param name relative to the folder of package.json
 */
export function packageFile(name: string): string {
  // The modules of src and of dist lie equally deep. A drive letter follows a slash in a URL, not in a path.
  return decodeURIComponent(new URL(`../${name}`, import.meta.url).pathname).replace(/^\/(?=[A-Za-z]:\/)/, '');
}

/** Folder of the small model that comes with this package (Node only). */
export const embeddedModel: string = packageFile('src/embedded');
