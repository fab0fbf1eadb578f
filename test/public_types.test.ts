import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import ts from 'typescript';
import { expect, test } from 'vitest';
import { repository, temporaryFolder } from './support/models.ts';

/** The entries of package.json, and the others whose types a user of each one may take. */
const ENTRIES = { 'index.d.ts': ['kernels.d.ts'], 'kernels.d.ts': [], 'testing/index.d.ts': [] };

const dist = repository('dist/');
const options: ts.CompilerOptions = {
  module: ts.ModuleKind.NodeNext,
  target: ts.ScriptTarget.ES2023,
  types: [],
  noEmit: true,
  strict: true,
};
const program = ts.createProgram(
  Object.keys(ENTRIES).map((entry) => dist + entry),
  options,
);
const checker = program.getTypeChecker();

function original(symbol: ts.Symbol): ts.Symbol {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
}

function exportsOf(entry: string): ts.Symbol[] {
  return checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(dist + entry)!)!);
}

/** A class that is exported as a type cannot be constructed, so its constructor is not public. */
function isTypeOnly(symbol: ts.Symbol): boolean {
  return (symbol.declarations ?? []).some((node) => ts.isExportSpecifier(node) && (node.isTypeOnly || node.parent.parent.isTypeOnly));
}

/** Types of this package in what users see of a declaration. Of `typeof` they see the result. */
function typesIn(declaration: ts.Node, typeOnly: boolean): ts.Symbol[] {
  const found: ts.Symbol[] = [];
  const visit = (node: ts.Node): void => {
    if (typeOnly && ts.isConstructorDeclaration(node)) return;
    const name = ts.isTypeReferenceNode(node)
      ? node.typeName
      : ts.isExpressionWithTypeArguments(node)
        ? node.expression
        : ts.isImportTypeNode(node)
          ? node.qualifier
          : undefined;
    const symbol = name && checker.getSymbolAtLocation(name);
    if (symbol && !(symbol.flags & ts.SymbolFlags.TypeParameter)) found.push(original(symbol));
    ts.forEachChild(node, visit);
  };
  visit(declaration);
  return found.filter(({ declarations }) => declarations?.[0]?.getSourceFile().fileName.startsWith(dist));
}

test.each(Object.entries(ENTRIES))('%s exports every type of its public signatures', (entry, others) => {
  const exported = new Set([entry, ...others].flatMap(exportsOf).map(original));
  expect(exported.size).toBeGreaterThan(10);
  const missing = exportsOf(entry).flatMap((symbol) =>
    (original(symbol).declarations ?? [])
      .flatMap((declaration) => typesIn(declaration, isTypeOnly(symbol)))
      .filter((type) => !exported.has(type))
      .map((type) => `${type.name}, of ${symbol.name}`),
  );
  expect([...new Set(missing)]).toEqual([]);
});

test('they compile without the types of Node, which a user may not have', () => {
  expect(program.getSourceFiles().filter(({ fileName }) => fileName.includes('@types/node'))).toEqual([]);
  const diagnostics = ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => [file?.fileName, messageText]);
  expect(diagnostics).toEqual([]);
}, 120_000);

test('the first example of docs/property_kit.md compiles as TypeScript', async () => {
  const [, example] = /^```js\n(.*?)^```/ms.exec(await readFile(repository('docs/property_kit.md'), 'utf8'))!;
  const file = join(await temporaryFolder(), 'example.mts');
  await writeFile(file, example!.replace('olmo-hybrid/testing', `${dist}testing/index.js`));
  const diagnostics = ts.getPreEmitDiagnostics(ts.createProgram([file], options)).map(({ messageText }) => messageText);
  expect(diagnostics).toEqual([]);
}, 120_000);
