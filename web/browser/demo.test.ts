/** The built page in a real browser: draw, and see who wins. */

import { readFileSync } from "node:fs";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import recorded from "../src/drawings.json";
import type { Drawing } from "../src/strokes";
import { DESKTOP, launch, PHONE, serve } from "./pages";

const drawings = recorded as Record<string, Drawing[]>;
let browser: Browser;
let context: BrowserContext;
let server: { url: string; close: () => void };
const problems: string[] = [];

beforeAll(async () => {
  server = await serve();
  browser = await launch("--disable-gpu");
});
afterAll(async () => {
  await browser?.close();
  server?.close();
});
afterEach(async () => {
  await context?.close();
  expect(problems.splice(0)).toEqual([]); // errors of the page, files that are not there
});

type ContextOptions = NonNullable<Parameters<Browser["newContext"]>[0]>;

async function open(options: ContextOptions = {}): Promise<Page> {
  context = await browser.newContext({ viewport: { width: 1200, height: 1500 }, ...options });
  const page = await context.newPage();
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url))
      problems.push(`not of this server: ${request.url()}`);
  });
  page.on("response", (response) => response.ok() || problems.push(response.url()));
  await page.goto(server.url);
  await page.getByText("Draw three different characters first.").waitFor();
  return page;
}

const paper = (page: Page, cell: number) => page.locator(`[data-cell="${cell}"] .paper`);
const button = (page: Page, cell: number, name: string) =>
  page.locator(`[data-cell="${cell}"]`).getByRole("button", { name });

/** Draws by mouse what is recorded in thousandths of the cell. */
async function draw(page: Page, cell: number, drawing: Drawing): Promise<void> {
  const box = await paper(page, cell).boundingBox();
  if (!box) throw new Error("the cell is not there");
  for (const stroke of drawing) {
    for (let i = 0; i + 1 < stroke.length; i += 2) {
      const x = box.x + ((stroke[i] as number) / 1000) * box.width;
      const y = box.y + ((stroke[i + 1] as number) / 1000) * box.height;
      await page.mouse.move(x, y);
      if (i === 0) await page.mouse.down();
    }
    await page.mouse.up();
  }
}

/** The probabilities in percent, once the page has taken in what was drawn. */
async function probabilities(page: Page): Promise<number[]> {
  await page.waitForFunction(() => document.body.dataset.state === "current");
  const texts = await page.locator("#bars .value").allTextContents();
  return texts.map((text) => Number.parseFloat(text));
}

/** 28×28 pixels of what a cell shows the network: true for ink. */
function seen(page: Page, cell: number): Promise<boolean[]> {
  return page.locator(`[data-cell="${cell}"] .seen`).evaluate((canvas: HTMLCanvasElement) => {
    const { data } = (canvas.getContext("2d") as CanvasRenderingContext2D).getImageData(
      0,
      0,
      28,
      28,
    );
    return Array.from({ length: 784 }, (_, i) => (data[4 * i + 3] as number) > 0);
  });
}

const TASKS: [string, string, string][] = [
  ["psi", "theta", "lambda"],
  ["zhe", "zed", "spiral"],
  ["five", "tent", "fish"],
  ["ladder", "waves", "hook"],
  ["lambda", "tent", "fish"],
  ["five", "zed", "hook"],
];

test.each(TASKS)(
  "drawn by mouse: %s, %s or %s",
  async (...names) => {
    const page = await open();
    for (const [i, name] of names.entries()) {
      await draw(page, i + 1, drawings[name]?.[0] as Drawing);
    }
    for (const [label, name] of names.entries()) {
      for (const variant of [1, 2]) {
        await button(page, 4, "Clear").click({ force: true });
        await draw(page, 4, drawings[name]?.[variant] as Drawing);
        const shares = await probabilities(page);
        expect(shares.reduce((a, b) => a + b)).toBeCloseTo(100, 0);
        expect(shares.indexOf(Math.max(...shares)), `${name} ${variant}: ${shares}`).toBe(label);
        expect(await page.locator("#answer").textContent()).toBe(
          `Most like character ${label + 1}.`,
        );
        await page.locator(`[data-cell="${label + 1}"].best`).waitFor();
      }
    }
  },
  60_000,
);

test("the fine-tuned logits are those of the Python package", async () => {
  const page = await open();
  await page.getByText("Model card").click();
  await page.getByRole("button", { name: "Compare with Python" }).click();
  const text = page.locator("#difference", { hasText: "Largest difference" });
  const difference = Number((await text.textContent())?.split(": ")[1]);
  expect(difference).toBeGreaterThan(0);
  expect(difference).toBeLessThan(1e-3);
});

test("once loaded, the page works without a network", async () => {
  const page = await open();
  await context.setOffline(true);
  for (const cell of [1, 2, 3, 4]) await button(page, cell, "Example").click();
  expect((await probabilities(page)).reduce((a, b) => a + b)).toBeCloseTo(100, 0);
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save a picture" }).click();
  expect((await saved).suggestedFilename()).toMatch(/\.png$/);
});

test("probabilities follow the pen while the fourth is being drawn", async () => {
  const page = await open();
  for (const cell of [1, 2, 3]) await button(page, cell, "Example").click();
  const box = await paper(page, 4).boundingBox();
  if (!box) throw new Error("the cell is not there");
  await page.mouse.move(box.x + 20, box.y + 20);
  await page.mouse.down();
  await page.mouse.move(box.x + 120, box.y + 160, { steps: 5 });
  const first = await probabilities(page);
  await page.mouse.move(box.x + 220, box.y + 20, { steps: 5 });
  const second = await probabilities(page);
  expect(first.every((share) => share >= 0)).toBe(true);
  expect(second).not.toEqual(first);
  await page.mouse.up();
});

test("undo, clear and undo again", async () => {
  const page = await open();
  const [one, two] = (drawings.lambda as Drawing[])[0] as Drawing;
  await draw(page, 1, [one as number[]]);
  const before = await seen(page, 1);
  expect(before).toContain(true);
  await draw(page, 1, [two as number[]]);
  const both = await seen(page, 1);
  expect(both).not.toEqual(before);
  await button(page, 1, "Undo").click();
  expect(await seen(page, 1)).toEqual(before);
  await draw(page, 1, [two as number[]]);
  await button(page, 1, "Clear").click();
  expect(await seen(page, 1)).not.toContain(true);
  await button(page, 1, "Undo").click();
  expect(await seen(page, 1)).toEqual(both);
  await page.getByRole("button", { name: "Clear everything" }).click();
  expect(await seen(page, 1)).not.toContain(true);
});

test("by keyboard alone: choose, draw, load examples, undo, clear", async () => {
  const page = await open();
  await page.keyboard.press("1");
  await page.keyboard.press("Space");
  for (let i = 0; i < 6; i++) await page.keyboard.press("ArrowRight");
  const drawnAcross = await seen(page, 1);
  expect(drawnAcross).toContain(true);
  for (let i = 0; i < 6; i++) await page.keyboard.press("Shift+ArrowDown");
  await page.keyboard.press("Space");
  for (let i = 0; i < 6; i++) await page.keyboard.press("ArrowUp"); // the pen is up
  const hook = await seen(page, 1);
  expect(hook).not.toEqual(drawnAcross);
  await page.keyboard.press("Control+z");
  expect(await seen(page, 1)).not.toContain(true);
  for (const key of ["1", "2", "3"]) {
    await page.keyboard.press(key);
    await page.keyboard.press("e");
  }
  await page.keyboard.press("4");
  await page.keyboard.press("e");
  expect((await probabilities(page)).reduce((a, b) => a + b)).toBeCloseTo(100, 0);
  await page.keyboard.press("Delete");
  expect(await seen(page, 4)).not.toContain(true);
  await page.getByText("Now draw one of the three again.").waitFor();
});

test("an empty pad says that it is to be drawn in, and what is missing is named", async () => {
  const page = await open();
  const hints = () => page.getByText("draw here").filter({ visible: true }).count();
  expect(await hints()).toBe(4);
  await button(page, 1, "Example").click();
  await page.getByText("Characters 2 and 3 are still to be drawn.").waitFor();
  expect(await hints()).toBe(3);
  await button(page, 2, "Example").click();
  await page.getByText("Character 3 is still to be drawn.").waitFor();
});

test("a copied link shows the same drawings and probabilities elsewhere", async () => {
  const page = await open();
  await page.getByRole("button", { name: "Show me an example" }).click();
  const before = await probabilities(page);
  const image = await seen(page, 4);
  await page.getByRole("button", { name: "Copy a link" }).click();
  await page.locator("#shared", { hasText: /link/i }).waitFor();
  const link = page.url();
  expect(link).toContain("#drawings=");
  const other = await context.newPage();
  await other.goto(link);
  await other.getByText("Most like character").waitFor();
  expect(await probabilities(other)).toEqual(before);
  expect(await seen(other, 4)).toEqual(image);
  await other.goto(`${server.url}#drawings=nonsense`); // leaves what is there
  expect(await seen(other, 4)).toEqual(image);
});

test("a picture can be saved", async () => {
  const page = await open();
  await page.getByRole("button", { name: "Show me an example" }).click();
  await probabilities(page);
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Save a picture" }).click(),
  ]);
  expect(download.suggestedFilename()).toBe("draw-and-classify.png");
  const content = readFileSync(await download.path());
  expect(content.subarray(1, 4).toString()).toBe("PNG");
  expect([content.readUInt32BE(16), content.readUInt32BE(20)]).toEqual([1200, 420]);
});

test("on a desktop both steps and the answer are visible without scrolling", async () => {
  const page = await open(DESKTOP);
  await page.getByRole("button", { name: "Show me an example" }).click();
  await probabilities(page);
  for (const selector of ["#query .cell", "section.answer"]) {
    const box = await page.locator(selector).boundingBox();
    expect((box?.y ?? 0) + (box?.height ?? 0), selector).toBeLessThanOrEqual(850);
  }
});

describe("on a telephone", () => {
  test("each heading is above its pads, and the answer stays in view", async () => {
    const page = await open(PHONE);
    const top = async (selector: string) =>
      ((await page.locator(selector).boundingBox())?.y ?? Number.NaN) +
      (await page.evaluate(() => scrollY));
    const order = ["#examples-title", '[data-cell="1"]', '[data-cell="3"]', "#query-title"];
    const tops = await Promise.all([...order, '[data-cell="4"]'].map(top));
    expect(tops).toEqual([...tops].sort((a, b) => a - b));
    await page.getByRole("button", { name: "Show me an example" }).click();
    await probabilities(page);
    for (const cell of [1, 4]) {
      await paper(page, cell).scrollIntoViewIfNeeded();
      const box = await page.locator("section.answer").boundingBox();
      expect(box?.y).toBeGreaterThan(0);
      expect((box?.y ?? 0) + (box?.height ?? 0)).toBeLessThanOrEqual(844);
    }
  });

  const telephone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

  test("a finger draws, and the page neither scrolls nor overflows", async () => {
    const page = await open(telephone);
    const session = await context.newCDPSession(page);
    await paper(page, 1).scrollIntoViewIfNeeded();
    const box = await paper(page, 1).boundingBox();
    if (!box) throw new Error("the cell is not there");
    const scrolled = () => page.evaluate(() => scrollY);
    const before = await scrolled();
    const touch = (type: "touchStart" | "touchMove" | "touchEnd", at: [number, number] | null) =>
      session.send("Input.dispatchTouchEvent", {
        type,
        touchPoints: at ? [{ x: box.x + at[0] * box.width, y: box.y + at[1] * box.height }] : [],
      });
    await touch("touchStart", [0.5, 0.1]);
    for (let y = 0.15; y <= 0.9; y += 0.05) await touch("touchMove", [0.5, y]);
    await touch("touchEnd", null);
    const ink = (await seen(page, 1)).flatMap((isInk, i) => (isInk ? [Math.floor(i / 28)] : []));
    expect(Math.max(...ink) - Math.min(...ink)).toBeGreaterThan(15);
    expect(await scrolled()).toBe(before);
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    expect(overflow).toBe(0);
  });
});

test("a model that cannot be loaded is reported", async () => {
  context = await browser.newContext();
  const page = await context.newPage();
  await page.route("**/model.bin", (route) => route.fulfill({ status: 404 }));
  await page.goto(server.url);
  await page.getByText("Something went wrong: model.bin: 404").waitFor();
});
