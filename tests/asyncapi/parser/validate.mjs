// Validates one AsyncAPI document with the official parser: prints its diagnostics, exits 1 if any is an error.
import { readFileSync } from "node:fs";
import { AvroSchemaParser } from "@asyncapi/avro-schema-parser";
import { Parser } from "@asyncapi/parser";

const path = process.argv[2];
const parser = new Parser();
parser.registerSchemaParser(AvroSchemaParser());
const { document, diagnostics } = await parser.parse(readFileSync(path, "utf8"), { source: path });
const wrong = diagnostics.filter((one) => one.severity === 0);
for (const one of diagnostics) {
  console.log(`${["error", "warning", "info", "hint"][one.severity]} ${one.code} ${one.path.join(".")}: ${one.message}`);
}
console.log(`channels ${document ? document.allChannels().all().length : 0}`);
process.exit(wrong.length > 0 || !document ? 1 : 0);
