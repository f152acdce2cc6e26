// Checks Kubernetes resources against their published definitions.
//   node check.mjs PACKAGES <DOCUMENTS >PROBLEMS
// PACKAGES is a folder with node_modules (package.json in this folder), DOCUMENTS a JSON list of lists of resources;
// PROBLEMS is a JSON list with the list of problems of each.
//
// Each is checked twice: by the validators of @kubernetes-models (types, enums, patterns, required members), which ignore
// unknown members, and by the TypeScript types of the same definitions, which refuse unknown members in a literal.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const packages = resolve(process.argv[2]);
const require = createRequire(join(packages, "package.json"));
const ts = require("typescript");

const OWNERS = {
  "extensions.istio.io": "istio",
  "networking.istio.io": "istio",
  "gateway.envoyproxy.io": "envoy-gateway",
  "gateway.networking.k8s.io": "gateway-api",
};

/** Returns the module that defines a resource. */
function moduleOf(resource) {
  const [group] = String(resource.apiVersion).split("/");
  const owner = OWNERS[group];
  return owner && `@kubernetes-models/${owner}/${resource.apiVersion}/${resource.kind}`;
}

async function byValidator(resource) {
  const file = join(packages, "node_modules", `${moduleOf(resource)}.js`);
  const models = await import(pathToFileURL(file).href);
  try {
    new models[resource.kind](structuredClone(resource)).validate();
    return [];
  } catch (error) {
    return [`${resource.kind}: ${error.message}`];
  }
}

/** Returns a program with one literal for each resource, so that unknown members are errors. */
function source(resources) {
  const lines = resources.map((resource, index) => [
    `import type { I${resource.kind} as T${index} } from "${moduleOf(resource)}";`,
    `export const r${index}: T${index} = ${JSON.stringify(resource)};`,
  ]);
  return lines.flat().join("\n");
}

function byType(files) {
  const options = { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, noEmit: true,
    skipLibCheck: true, strict: true, target: ts.ScriptTarget.ES2022, types: [] };
  const program = ts.createProgram(files, options);
  return files.map((file) => {
    const found = ts.getPreEmitDiagnostics(program, program.getSourceFile(file));
    return found.map((problem) => ts.flattenDiagnosticMessageText(problem.messageText, " "));
  });
}

async function main() {
  const documents = JSON.parse(readFileSync(0, "utf8"));
  const folder = mkdtempSync(join(packages, "check-"));
  try {
    writeFileSync(join(folder, "package.json"), '{"type": "module"}');
    const files = documents.map((resources, index) => {
      const file = join(folder, `${index}.ts`);
      writeFileSync(file, source(resources));
      return file;
    });
    const types = byType(files);
    const problems = [];
    for (const [index, resources] of documents.entries()) {
      const unknown = resources.filter((resource) => !moduleOf(resource));
      const valid = await Promise.all(resources.filter(moduleOf).map(byValidator));
      problems.push([...unknown.map((resource) => `no definition of ${resource.apiVersion} ${resource.kind}`), ...types[index],
        ...valid.flat()]);
    }
    process.stdout.write(JSON.stringify(problems));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

await main();
