/** The built figure in a real browser: what it shows is what the tested formulas say. */

import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { ALGORITHMS, meanLosses, outerStep, type Settings } from "../src/algorithms";
import { EXTENT, type Point, SCENES, type Scene } from "../src/landscape";
import { launch, serve } from "./pages";

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
  expect(problems.splice(0)).toEqual([]);
});

async function open(width = 1200, height = 1300): Promise<Page> {
  context = await browser.newContext({ viewport: { width, height } });
  const page = await context.newPage();
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url))
      problems.push(`not of this server: ${request.url()}`);
  });
  page.on("response", (response) => response.ok() || problems.push(response.url()));
  await page.goto(`${server.url}figure.html`);
  return page;
}

/** What stands below a plane: loss at θ, loss after k steps, distance of θ from ★. */
async function facts(page: Page, panel: number): Promise<number[]> {
  return (await page.locator(".panel").nth(panel).locator("dd").allTextContents()).map(Number);
}

const scene = SCENES[0] as Scene;
/** The page's initial settings. */
const initial: Settings = {
  optimizer: "SGD",
  innerSteps: 2,
  learningRate: 0.15,
  interpolation: 0.4,
};

function expected(theta: Point, settings: Settings): number[] {
  const { before, after } = meanLosses(scene.tasks, theta, settings);
  return [before, after].map((value) => expect.closeTo(value, 2.9));
}

test("one step moves each algorithm's θ as its formula says", async () => {
  const page = await open();
  await page.getByLabel("Inner optimizer").selectOption("Adam");
  await page.getByLabel("Inner steps k").fill("5");
  await page.getByLabel("Interpolation β").fill("0.8");
  const settings = { ...initial, optimizer: "Adam", innerSteps: 5, interpolation: 0.8 } as const;
  await page.getByRole("button", { name: "One step" }).click();
  for (const [i, algorithm] of ALGORITHMS.entries()) {
    const { next } = outerStep(algorithm, scene.tasks, scene.start, settings);
    expect((await facts(page, i)).slice(0, 2), algorithm).toEqual(expected(next, settings));
  }
});

test("one task in turn", async () => {
  const page = await open();
  await page.getByLabel("Each outer step").selectOption("takes one task in turn");
  let theta = scene.start;
  for (const task of scene.tasks) {
    await page.getByRole("button", { name: "One step" }).click();
    theta = outerStep("Reptile", [task], theta, initial).next;
  }
  expect((await facts(page, 0)).slice(0, 2)).toEqual(expected(theta, initial));
});

test("θ follows the pointer and the arrow keys, in every panel at once", async () => {
  const page = await open();
  const box = await page.locator(".plane").nth(2).boundingBox();
  if (!box) throw new Error("the plane is not there");
  const at = ([x, y]: Point) =>
    [
      box.x + ((x / EXTENT + 1) / 2) * box.width,
      box.y + ((1 - y / EXTENT) / 2) * box.height,
    ] as const;
  await page.mouse.move(...at([0, 0]));
  await page.mouse.down();
  await page.mouse.move(...at([1.5, -1.5]), { steps: 4 });
  await page.mouse.up();
  for (const i of [0, 1, 2, 3]) {
    const received = await facts(page, i);
    const { before } = meanLosses(scene.tasks, [1.5, -1.5], initial);
    expect(received[0]).toBeCloseTo(before, 1);
  }
  const before = await facts(page, 0);
  await page.keyboard.press("ArrowUp");
  expect(await facts(page, 0)).not.toEqual(before);
  await page.keyboard.press("ArrowDown");
  expect(await facts(page, 0)).toEqual(before);
});

test("playing takes Reptile to the star, and joint training elsewhere", async () => {
  const page = await open();
  await page.getByLabel("Inner steps k").fill("32");
  await page.getByLabel("Interpolation β").fill("1");
  const startsAt = (await facts(page, 0))[2] as number;
  expect(startsAt).toBeGreaterThan(3);
  await page.getByRole("button", { name: "Play" }).click();
  await page.waitForFunction(
    () => Number(document.querySelectorAll(".panel dd")[2]?.textContent) < 0.3,
    null,
    { timeout: 120_000 },
  );
  await page.getByRole("button", { name: "Pause" }).click();
  const [reptile, joint] = [await facts(page, 0), await facts(page, 3)];
  expect(reptile[1]).toBeLessThan(joint[1] as number);
  expect(joint[2]).toBeGreaterThan(1);
  expect(await page.locator("#chart polyline").count()).toBe(4);
  await page.getByRole("button", { name: "Back to the start" }).click();
  expect((await facts(page, 0))[2]).toBe(startsAt);
});

test("a copied link has the settings and the start; nonsense in a link is ignored", async () => {
  const page = await open();
  await page.getByLabel("Inner steps k").fill("7");
  await page.getByLabel("Inner optimizer").selectOption("Adam");
  await page.locator(".plane").first().focus();
  await page.keyboard.press("ArrowUp");
  const before = await facts(page, 1);
  await page.getByRole("button", { name: "Copy a link" }).click();
  await page.locator("#shared", { hasText: /link/i }).waitFor();
  const other = await context.newPage();
  await other.goto(page.url());
  expect(await facts(other, 1)).toEqual(before);
  expect(await other.getByLabel("Inner steps k").inputValue()).toBe("7");
  const third = await context.newPage();
  await third.goto(`${server.url}figure.html#k=many&scene=none&optimizer=&x=1e9&y=0&turn=one`);
  const { before: at } = meanLosses(scene.tasks, scene.start, initial);
  expect((await facts(third, 0))[0]).toBeCloseTo(at, 2);
  expect(await third.getByLabel("Inner steps k").inputValue()).toBe("2");
  expect(await third.getByLabel("Each outer step").inputValue()).toBe("one");
});

test("a picture can be saved, and each algorithm says what it does", async () => {
  const page = await open();
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Save a picture" }).click(),
  ]);
  expect(download.suggestedFilename()).toBe("how-reptile-moves.png");
  expect(await page.getByLabel("Inner steps k").inputValue()).toBe("2");
  const rules = await page.locator(".panel > p").allTextContents();
  expect(rules).toHaveLength(ALGORITHMS.length);
  expect(new Set(rules).size).toBe(ALGORITHMS.length);
});

test("once loaded, the figure works without a network", async () => {
  const page = await open();
  const before = await facts(page, 0);
  await context.setOffline(true);
  await page.getByRole("button", { name: "One step" }).click();
  expect(await facts(page, 0)).not.toEqual(before);
});

test("nothing overflows on a telephone", async () => {
  const page = await open(360, 740);
  const overflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  expect(overflow).toBe(0);
});
