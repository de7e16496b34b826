/** axe finds nothing on the built pages, in either theme, on a phone and on a desktop. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DESKTOP, launch, PHONE, serve } from "./pages";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let browser: Browser;
let server: { url: string; close: () => void };

beforeAll(async () => {
  server = await serve();
  browser = await launch("--disable-gpu");
});
afterAll(async () => {
  await browser?.close();
  server?.close();
});

const cases = ["index.html", "figure.html"].flatMap((name) =>
  (["light", "dark"] as const).flatMap((colorScheme) =>
    Object.entries({ PHONE, DESKTOP }).map(
      ([device, options]) => [name, colorScheme, device, options] as const,
    ),
  ),
);

test.each(cases)("%s, %s, %s", async (name, colorScheme, _, options) => {
  const context = await browser.newContext({ ...options, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  await page.goto(server.url + name);
  const violations = async () => {
    await page.evaluate(AXE);
    return page.evaluate(async () => {
      const { axe } = window as unknown as { axe: { run: () => Promise<AxeResults> } };
      const found = (await axe.run()).violations;
      return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
    });
  };
  if (name === "index.html") {
    await page.getByText("Draw three different characters first.").waitFor();
    expect(await violations()).toEqual([]); // with empty pads and their hints
    await page.getByRole("button", { name: "Show me an example" }).click();
    await page.getByText("Most like character").waitFor();
  }
  for (const details of await page.locator("summary").all()) await details.click();
  expect(await violations()).toEqual([]);
  await context.close();
});
