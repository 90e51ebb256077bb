// Types for openapi-fetch, with pictures as Blob; the command of openapi-typescript makes them strings.
import { writeFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const blob = ts.factory.createTypeReferenceNode(ts.factory.createIdentifier("Blob"));
const document = new URL("openapi.json", import.meta.url);
const nodes = await openapiTS(document, {
  transform: (schema) => (schema.format === "binary" ? blob : undefined),
});
writeFileSync("schema.d.ts", astToString(nodes));
