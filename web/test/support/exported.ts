import { readFileSync } from "node:fs";
import { type ModelDescription, type Reference, readModel } from "../../src/model";

const folder = new URL("../../public/model/", import.meta.url);

/** The committed model, as the page would load it. */
export const description = JSON.parse(
  readFileSync(new URL("model.json", folder), "utf8"),
) as ModelDescription;
export const reference = JSON.parse(
  readFileSync(new URL("reference.json", folder), "utf8"),
) as Reference;
const { buffer, byteOffset, byteLength } = readFileSync(new URL("model.bin", folder));
export const file = buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
export const model = readModel(description, file);
