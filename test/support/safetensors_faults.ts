/** A damaged safetensors file, and what the message about it must name. */
export interface Fault {
  readonly fault: string;
  readonly bytes: Uint8Array;
  readonly says: readonly string[];
}

/** Joins a header length, a header and data, whether or not they fit each other. */
export function rawFile(header: string | Uint8Array, dataBytes = 0, headerLength?: bigint): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, headerLength ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

const entry = (dtype: string, shape: string, offsets: string) => `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
const one = (dtype: string, shape: string, offsets: string, dataBytes = 8) => rawFile(`{"w":${entry(dtype, shape, offsets)}}`, dataBytes);
const pair = (a: string, b: string, dataBytes: number) =>
  rawFile(`{"a":${entry('F32', '[2]', a)},"b":${entry('U8', '[3]', b)}}`, dataBytes);
const splice = (text: string, ...bytes: number[]) => {
  const [before, after] = text.split('?') as [string, string];
  return Uint8Array.of(...new TextEncoder().encode(before), ...bytes, ...new TextEncoder().encode(after));
};
const fault = (name: string, bytes: Uint8Array, ...says: string[]): Fault => ({ fault: name, bytes, says });

const good = entry('F32', '[2]', '[0,8]');

/** One file for each rule of the format, every one of them sound but for the named fault. */
export const faults: readonly Fault[] = [
  fault('empty file', new Uint8Array(0), 'byte 0', '0 bytes'),
  fault('shorter than the header length', new Uint8Array(7), 'byte 0', '7 bytes'),
  fault('header length 0', rawFile('', 8), 'byte 8', 'empty header'),
  fault('header length 1', rawFile('{', 0), 'byte 9', 'end of the text'),
  fault('header length one past the file', rawFile('{}', 0, 3n), 'byte 8', 'header of 3 bytes', 'end of the file at byte 10'),
  fault('header length over 100 MB', rawFile('{}', 0, 100_000_001n), 'byte 0', '100000001'),
  fault('header length 2^53', rawFile('{}', 0, 2n ** 53n), 'byte 0', '9007199254740992'),
  fault('header length 2^63', rawFile('{}', 0, 2n ** 63n), 'byte 0', '9223372036854775808'),
  fault('header length 2^64 - 1', rawFile('{}', 0, 2n ** 64n - 1n), 'byte 0', '18446744073709551615'),

  fault('header begins with a space', rawFile(` {"w":${good}}`, 8), 'byte 8', '0x20'),
  fault('header begins with a byte order mark', rawFile(`\ufeff{"w":${good}}`, 8), 'byte 8', '0xef'),
  fault('header is an array', rawFile('[]'), 'byte 8', '0x5b'),
  fault('padding of zero bytes', rawFile(`{"w":${good}}\0\0`, 8), `byte ${8 + 6 + good.length}`, '\\u{0}'),
  fault('two headers', rawFile('{}{}'), 'byte 10', 'nothing after'),
  fault('name not UTF-8', rawFile(splice(`{"w?":${good}}`, 0xff), 8), 'JSON at byte 10', 'UTF-8'),
  fault('overlong UTF-8', rawFile(splice(`{"w?":${good}}`, 0xc0, 0xaf), 8), 'JSON at byte 10', 'UTF-8'),
  fault('UTF-8 of a surrogate', rawFile(splice(`{"w?":${good}}`, 0xed, 0xa0, 0x80), 8), 'JSON at byte 10', 'UTF-8'),
  fault('a byte outside strings that is not ASCII', rawFile(splice(`{"w":?${good}}`, 0xc2, 0xa0), 8), 'JSON at byte 13'),
  fault('half a surrogate pair, escaped', rawFile(`{"w\\ud800":${good}}`, 8), 'JSON at byte 10', 'UTF-8'),
  fault('unknown escape', rawFile(`{"w\\x41":${good}}`, 8), 'JSON at byte 10', 'escapes'),
  fault('escape cut short', rawFile(`{"w\\u00":${good}}`, 8), 'JSON at byte 10', 'escapes'),
  fault('line feed in a name', rawFile(`{"w\n":${good}}`, 8), 'JSON at byte 11', 'control character'),
  fault('name without an end', rawFile('{"w'), 'JSON at byte 11', 'closing quote'),
  fault('name that ends in a backslash', rawFile('{"w\\'), 'JSON', 'closing quote'),
  fault('key without quotes', rawFile(`{w:${good}}`, 8), 'JSON at byte 9', 'double quotes'),
  fault('no colon', rawFile(`{"w" ${good}}`, 8), 'JSON at byte 13', 'colon'),
  fault('no comma', rawFile(`{"w":${good} "x":${good}}`, 8), 'JSON', 'comma'),
  fault('comma after the last tensor', rawFile(`{"w":${good},}`, 8), 'JSON', 'double quotes'),
  fault('comma after the last dimension', one('F32', '[2,]', '[0,8]'), 'JSON', 'a JSON value', ']'),
  fault('bracket closed by a brace', one('F32', '[2}', '[0,8]'), 'JSON', 'comma or "]"'),
  fault('header without an end', rawFile(`{"w":${good}`, 8), 'JSON', 'end of the text'),
  fault('a comment', rawFile(`{/**/"w":${good}}`, 8), 'JSON at byte 9'),
  fault('a misspelt literal', rawFile('{"w":nul}'), 'JSON at byte 13', 'a JSON value'),
  fault('a literal that goes on', rawFile('{"w":nullify}'), 'JSON at byte 13', 'a JSON value'),
  fault('a malformed number', rawFile('{"w":1.e5}'), 'JSON at byte 13', 'a JSON number'),
  fault('a number of 100,000 digits', rawFile(`{"w":${'9'.repeat(100_000)}}`), 'JSON at byte 13', 'a JSON number'),
  fault('100,000 brackets', rawFile(`{"w":${'['.repeat(100_000)}`), 'JSON', '64 levels of nesting'),
  fault('100,000 braces', rawFile('{"w":'.repeat(100_000)), 'JSON', '64 levels of nesting'),

  fault('tensor twice', rawFile(`{"w":${good},"w":${good}}`, 8), '"header" at byte', 'the key "w" once'),
  fault('tensor twice, once escaped', rawFile(`{"w":${good},"\\u0077":${good}}`, 8), 'the key "w" once'),
  fault('__proto__ twice', rawFile(`{"__proto__":${good},"__proto__":${good}}`, 8), 'the key "__proto__" once'),
  fault(
    'dtype twice',
    rawFile('{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8),
    '"w" at byte',
    'the key "dtype" once',
  ),
  fault('__metadata__ twice', rawFile('{"__metadata__":{},"__metadata__":{}}'), 'the key "__metadata__" once'),
  fault('metadata key twice', rawFile('{"__metadata__":{"k":"1","k":"1"}}'), '"__metadata__" at byte', 'the key "k" once'),
  fault('metadata is null', rawFile('{"__metadata__":null}'), '"__metadata__" at byte 24', 'null'),
  fault('metadata is an array', rawFile('{"__metadata__":["k"]}'), '"__metadata__" at byte 24', '["k"]'),
  fault('metadata value is a number', rawFile('{"__metadata__":{"k":1}}'), '"k" at byte 29', 'found 1'),
  fault('metadata value is an object', rawFile('{"__metadata__":{"k":{"a":[{}]}}}'), '"k" at byte 29'),
  fault(
    'metadata in the place of a tensor',
    rawFile('{"metadata":{"format":"pt"}}'),
    '"metadata"',
    'no dtype',
    'no shape',
    'no data_offsets',
  ),

  fault('tensor is a number', rawFile('{"w":5}'), '"w" at byte 13', 'found 5'),
  fault('tensor is null', rawFile('{"w":null}'), '"w" at byte 13', 'found null'),
  fault('unknown key', rawFile(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]}}`, 8), '"w"', '"strides"'),
  fault('no dtype', rawFile('{"w":{"shape":[2],"data_offsets":[0,8]}}', 8), '"w"', 'no dtype'),
  fault('no shape', rawFile('{"w":{"dtype":"F32","data_offsets":[0,8]}}', 8), '"w"', 'no shape'),
  fault('no data_offsets', rawFile('{"w":{"dtype":"F32","shape":[2]}}', 8), '"w"', 'no data_offsets'),
  fault('dtype is a number', rawFile('{"w":{"dtype":32,"shape":[2],"data_offsets":[0,8]}}', 8), '"w" at byte', 'found 32'),
  fault('unknown dtype', one('F24', '[2]', '[0,8]'), '"w"', 'found "F24"'),
  fault('dtype in small letters', one('f32', '[2]', '[0,8]'), '"w"', 'found "f32"'),
  fault('dtype named like a method', one('constructor', '[2]', '[0,8]'), '"w"', 'found "constructor"'),
  fault('shape is a number', one('F32', '2', '[0,8]'), '"w" at byte', 'shape', 'found 2'),
  fault('shape is null', one('F32', 'null', '[0,8]'), '"w" at byte', 'shape', 'found null'),
  fault('dimension in quotes', one('F32', '["2"]', '[0,8]'), '"w" at byte', 'shape', 'found "2"'),
  fault('dimension is negative', one('F32', '[-2]', '[0,8]'), '"w" at byte', 'shape', 'found -2'),
  fault('dimension is minus zero', one('F32', '[-0]', '[0,0]', 0), '"w" at byte', 'shape', 'found -0'),
  fault('dimension with a fraction', one('F32', '[2.0]', '[0,8]'), '"w" at byte', 'shape', 'found 2.0'),
  fault('dimension with an exponent', one('F32', '[2e0]', '[0,8]'), '"w" at byte', 'shape', 'found 2e0'),
  fault('dimension with a leading zero', one('F32', '[02]', '[0,8]'), 'JSON', 'a JSON number'),
  fault('dimension is an array', one('F32', '[[2]]', '[0,8]'), '"w" at byte', 'shape', 'found [2]'),
  fault('dimension 2^53', one('F32', '[9007199254740992]', '[0,8]'), '"w" at byte', 'shape', '9007199254740992'),
  fault('dimension of 60 digits', one('F32', `[${'1'.repeat(60)}]`, '[0,8]'), '"w" at byte', 'shape', '1111'),
  fault('two wrong dimensions', one('F32', '[-1,-1]', '[0,8]'), '"w" at byte', 'shape', 'found -1'),
  fault('product of the shape is 2^64', one('F32', '[4294967296,4294967296]', '[0,0]', 0), '"w"', 'below 2^53', '[4294967296, 4294967296]'),
  fault('product of the shape is 2^53', one('U8', '[134217728,67108864]', '[0,8]'), '"w"', 'below 2^53'),
  fault('product of the shape overflows before a zero', one('U8', '[1099511627776,1099511627776,0]', '[0,0]', 0), '"w"', 'below 2^53'),
  fault('bits of the shape beyond 2^53', one('F64', '[140737488355328]', '[0,8]'), '"w"', 'below 2^53'),
  fault('half a byte', one('F4', '[3]', '[0,1]', 1), '"w"', 'whole number of bytes', 'F4 [3]'),

  fault('data_offsets is an object', one('F32', '[2]', '{}'), '"w" at byte', 'data_offsets', '{}'),
  fault('one offset', one('F32', '[2]', '[8]'), '"w"', '[begin, end]', 'found [8]'),
  fault('three offsets', one('F32', '[2]', '[0,8,8]'), '"w"', '[begin, end]', 'found [0, 8, 8]'),
  fault('no offsets', one('F32', '[2]', '[]'), '"w"', '[begin, end]', 'found []'),
  fault('offset is negative', one('F32', '[2]', '[-8,0]'), '"w" at byte', 'data_offsets', 'found -8'),
  fault('offset beyond 2^53', one('F32', '[2]', '[0,9007199254741000]'), '"w" at byte', 'data_offsets', '9007199254741000'),
  fault('offset beyond 2^64', one('F32', '[2]', '[18446744073709551616,18446744073709551624]'), '"w" at byte', 'data_offsets'),
  fault('offset with a fraction', one('F32', '[2]', '[0.0,8]'), '"w" at byte', 'data_offsets', 'found 0.0'),
  fault('offsets reversed', one('F32', '[2]', '[8,0]'), '"w"', '8 bytes for F32 [2]', 'data_offsets [8, 0]'),
  fault('offsets span too little', one('F32', '[2]', '[0,7]', 7), '"w"', '8 bytes for F32 [2]', 'data_offsets [0, 7]'),
  fault('offsets span too much', one('F32', '[2]', '[0,16]', 16), '"w"', '8 bytes for F32 [2]', 'data_offsets [0, 16]'),
  fault('dtype of another width', one('F16', '[2]', '[0,8]'), '"w"', '4 bytes for F16 [2]', 'data_offsets [0, 8]'),
  fault('bytes for an empty tensor', one('F32', '[2,0]', '[0,8]'), '"w"', '0 bytes for F32 [2, 0]'),
  fault('no bytes for a scalar', one('F32', '[]', '[0,0]', 0), '"w"', '4 bytes for F32 []'),

  fault('data begins late', one('F32', '[2]', '[4,12]', 12), '"w"', 'the header ends', 'a hole'),
  fault('hole between tensors', pair('[0,8]', '[9,12]', 12), '"b"', '"a" ends', 'a hole'),
  fault('overlap', pair('[0,8]', '[7,10]', 10), '"b"', '"a" ends', 'an overlap'),
  fault('tensor inside another', pair('[0,8]', '[2,5]', 8), '"b"', '"a" ends', 'an overlap'),
  fault('two tensors at one place', rawFile(`{"a":${good},"b":${good}}`, 8), '"b"', '"a" ends', 'an overlap'),
  fault('empty tensor inside another', rawFile(`{"a":${good},"b":${entry('F32', '[0]', '[4,4]')}}`, 8), '"b"', '"a" ends', 'an overlap'),
  fault('empty tensor past the end', rawFile(`{"a":${good},"b":${entry('F32', '[0]', '[9,9]')}}`, 8), '"b"', '"a" ends', 'a hole'),
  fault('data cut off', pair('[0,8]', '[8,11]', 10), '"b"', 'end of the file at byte'),
  fault('no data at all', pair('[0,8]', '[8,11]', 0), '"a"', 'end of the file at byte'),
  fault('offsets just below 2^53', one('U8', '[0]', '[9007199254740991,9007199254740991]', 0), '"w"', 'a hole'),
  fault('a byte after the last tensor', one('F32', '[2]', '[0,8]', 9), '"w" ends', '1 more bytes'),
  fault('data without tensors', rawFile('{}', 5), 'the header ends', '5 more bytes'),
];
