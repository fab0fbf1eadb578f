/**
 * What renders a chat template, in a worker: that alone can be stopped in the middle of a loop and has a heap of its own to fill. A string, so
 * that the same lines run from the sources under a test runner and from the built package.
 *
 * HF renders with Jinja2, where values are Python's. @huggingface/jinja 0.5.11 prints them as JSON and JavaScript do, and its `strip` and `trim`
 * take no argument. What is put in its place here is what Jinja2 does with values that came out of JSON.
 */
export const CHAT_WORKER = String.raw`
const { parentPort, workerData } = require('node:worker_threads');
const { Environment, Interpreter, Template } = require(workerData.jinja);

const classOf = (value) => new Environment().set('value', value).constructor;
const [StringValue, FunctionValue, ArrayValue, IntegerValue, FloatValue] = ['', () => null, [], 1, 0.5].map(classOf);

// repr() of a float: an exponent, of two digits or more, where it is below -4 or above 15.
function float(value) {
  const [digits, exponent] = value.toExponential().split('e');
  const size = Math.abs(exponent);
  if (exponent < -4 || exponent > 15) return digits + 'e' + exponent[0] + String(size).padStart(2, '0');
  return Object.is(value, -0) ? '-0.0' : String(value) + (Number.isInteger(value) ? '.0' : '');
}

// repr() of a string: escaped is what str.isprintable() denies. The mark of renderMarkedChat is not of the chat.
function quoted(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const short = { '\t': '\\t', '\n': '\\n', '\r': '\\r', '\\': '\\\\', [quote]: '\\' + quote };
  const hex = (code) => (code < 256 ? '\\x' + code.toString(16).padStart(2, '0')
    : code < 65536 ? '\\u' + code.toString(16).padStart(4, '0') : '\\U' + code.toString(16).padStart(8, '0'));
  const escaped = (c) => (c === ' ' || c === workerData.mark ? c : hex(c.codePointAt(0)));
  return quote + text.replace(/[\\'"]|[\p{C}\p{Z}]/gu, (c) => short[c] ?? (/['"]/.test(c) ? c : escaped(c))) + quote;
}

function repr(value) {
  const items = () => value.value.map(repr).join(', ');
  switch (value.type) {
    case 'NullValue': return 'None';
    case 'UndefinedValue': return 'Undefined';
    case 'BooleanValue': return value.value ? 'True' : 'False';
    case 'FloatValue': return float(value.value);
    case 'StringValue': return quoted(value.value);
    case 'ArrayValue': return '[' + items() + ']';
    case 'TupleValue': return '(' + items() + (value.value.length === 1 ? ',)' : ')');
    case 'ObjectValue': return '{' + [...value.value].map(([key, entry]) => quoted(key) + ': ' + repr(entry)).join(', ') + '}';
    default: return value.toString();
  }
}

function str(value) {
  return value.type === 'StringValue' ? value.value : value.type === 'UndefinedValue' ? '' : repr(value);
}

// str.strip; String.trim would keep U+001C to U+001F and U+0085, and take U+FEFF.
function strip(text, chars, left, right) {
  if (chars !== undefined && !['StringValue', 'NullValue'].includes(chars.type)) throw new TypeError('strip arg must be None or str');
  const given = chars?.type === 'StringValue' ? new Set(chars.value) : null;
  const goes = (c) => (given ? given.has(c) : /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/.test(c));
  const all = Array.from(text);
  let [start, end] = [0, all.length];
  while (left && start < end && goes(all[start])) start++;
  while (right && end > start && goes(all[end - 1])) end--;
  return new StringValue(all.slice(start, end).join(''));
}

const { get: methodsOf } = Object.getOwnPropertyDescriptor(StringValue.prototype, 'builtins');
Object.defineProperty(StringValue.prototype, 'builtins', {
  get() {
    const methods = methodsOf.call(this);
    for (const [name, left, right] of [['strip', true, true], ['lstrip', true, false], ['rstrip', false, true]]) {
      methods.set(name, new FunctionValue(([chars]) => strip(this.value, chars, left, right)));
    }
    return methods;
  },
});

const { applyFilter, evaluateBinaryExpression } = Interpreter.prototype;
Interpreter.prototype.applyFilter = function (operand, filter, environment) {
  const name = (filter.callee ?? filter).value;
  if (name === 'string') return new StringValue(str(operand));
  if (name === 'trim') {
    const [args, named] = filter.args ? this.evaluateArguments(filter.args, environment) : [[], new Map()];
    return strip(str(operand), args[0] ?? named.get('chars'), true, true);
  }
  const texts = name === 'join' && operand instanceof ArrayValue;
  const joined = texts ? new ArrayValue(operand.value.map((item) => new StringValue(str(item)))) : operand;
  return applyFilter.call(this, joined, filter, environment);
};

Interpreter.prototype.evaluateBinaryExpression = function (node, environment) {
  const operator = node.operator.value;
  if (!['+', '~', '%'].includes(operator)) return evaluateBinaryExpression.call(this, node, environment);
  const [left, right] = [node.left, node.right].map((side) => this.evaluate(side, environment));
  if (operator === '~') return new StringValue(str(left) + str(right));
  const number = (value) => new (left.type === 'FloatValue' || right.type === 'FloatValue' ? FloatValue : IntegerValue)(value);
  const both = (...types) => types.includes(left.type) && types.includes(right.type);
  const areNumbers = both('IntegerValue', 'BooleanValue', 'FloatValue');
  if (operator === '%') {
    if (!areNumbers || Number(right.value) === 0) throw new TypeError('unsupported operands for %: ' + left.type + ' and ' + right.type);
    const rest = left.value % right.value;
    return number(rest !== 0 && rest < 0 !== right.value < 0 ? rest + right.value : rest); // of the divisor's sign
  }
  if (both('StringValue')) return new StringValue(left.value + right.value);
  if (both('ArrayValue') || both('TupleValue')) return new left.constructor(left.value.concat(right.value));
  if (areNumbers) return number(left.value + right.value);
  throw new TypeError('unsupported operands for +: ' + left.type + ' and ' + right.type);
};

Interpreter.prototype.evaluateBlock = function (statements, environment) {
  let text = '';
  for (const statement of statements) {
    const value = this.evaluate(statement, environment);
    if (!['Set', 'Macro', 'Comment'].includes(statement.type)) text += str(value);
  }
  return new StringValue(text);
};

// For tojson.
const stringify = JSON.stringify;
JSON.stringify = (value, ...more) => (typeof value === 'number' && !Number.isInteger(value) ? float(value) : stringify(value, ...more));

// Jinja2 takes any end of a line for \n.
const text = new Template(workerData.source.replace(/\r\n?/g, '\n')).render(workerData.variables);
parentPort.postMessage(text.length > workerData.max_chars ? { length: text.length } : { text });
`;
