/** Writes ../src/hands.json, which the page's model card shows: npm run hands. */

import { writeFileSync } from "node:fs";
import { test } from "vitest";
import { model } from "../test/support/exported";
import { measureHands } from "./hands";

test("the accuracy over the authored drawings in several hands", () => {
  const path = new URL("../src/hands.json", import.meta.url);
  writeFileSync(path, `${JSON.stringify(measureHands(model), null, 2)}\n`);
});
