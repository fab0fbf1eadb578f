import { ArgumentError } from '../errors.ts';

/** Where the Hub and its cache are, by the variables that Python's huggingface_hub reads. */
export interface HubEnvironment {
  /** Without a slash at its end. HF_ENDPOINT, default https://huggingface.co. */
  readonly endpoint: string;
  /** Folder of downloaded repositories, shared with Python. HF_HUB_CACHE, default HF_HOME/hub. */
  readonly cache: string;
  /** Folder of what libraries made of them; quantised models are in its `olmo-hybrid`. HF_ASSETS_CACHE, default HF_HOME/assets. */
  readonly assets: string;
  /** HF_TOKEN, or the content of HF_TOKEN_PATH, default HF_HOME/token. */
  readonly token: string | null;
  /** HF_HUB_OFFLINE: no request is made. */
  readonly offline: boolean;
  /** A connection that gives no byte for so long is given up. HF_HUB_DOWNLOAD_TIMEOUT in seconds, default 10. */
  readonly idle_timeout_ms: number;
  /** Pause before the first repetition of a request; it doubles with each. */
  readonly retry_delay_ms: number;
}

const ENDPOINT = 'https://huggingface.co';
const IDLE_TIMEOUT_SECONDS = 10;
const RETRY_DELAY_MS = 1000;

/**
 * Reads the environment (Node only). HF: huggingface_hub.constants.
 * @throws {ArgumentError} when a variable cannot be used
 */
export async function hubEnvironment(env: Readonly<Record<string, string | undefined>> = process.env): Promise<HubEnvironment> {
  const { homedir } = await import('node:os');
  const { join } = await import('node:path');
  const expanded = (path: string) => path.replace(/^~(?=$|[/\\])/, homedir());
  const home = expanded(env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface'));
  const implicit = !isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN);
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || ENDPOINT),
    cache: expanded(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, 'hub')),
    assets: expanded(env.HF_ASSETS_CACHE || env.HUGGINGFACE_ASSETS_CACHE || join(home, 'assets')),
    token: implicit
      ? tokenOf(env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || (await tokenFile(expanded(env.HF_TOKEN_PATH || join(home, 'token')))))
      : null,
    offline: isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    idle_timeout_ms: 1000 * (Number.parseInt(env.HF_HUB_DOWNLOAD_TIMEOUT ?? '', 10) || IDLE_TIMEOUT_SECONDS),
    retry_delay_ms: RETRY_DELAY_MS,
  };
}

function isTrue(value = ''): boolean {
  return ['1', 'ON', 'YES', 'TRUE'].includes(value.toUpperCase());
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url && (url.protocol === 'https:' || url.protocol === 'http:')) return text.replace(/\/+$/, '');
  throw new ArgumentError({
    where: 'HF_ENDPOINT',
    expected: 'an http or https URL',
    found: JSON.stringify(text),
    fix: 'Correct or unset it.',
  });
}

async function tokenFile(path: string): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  return await readFile(path, 'utf8').catch(() => '');
}

/** A token goes into a header, which takes printable ASCII only. */
function tokenOf(text: string): string | null {
  const token = text.trim();
  if (token === '') return null;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new ArgumentError({ where: 'HF_TOKEN', expected: 'a token of printable ASCII', found: 'other characters', fix: 'Copy it again.' });
}
