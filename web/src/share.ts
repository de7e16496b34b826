/** A link whose fragment holds what the page shows, and a picture of it. */

import type { Drawing } from "./strokes";

/** Points nearer to the one before than this, as a share of the cell, are left out of a link. */
const NEAR = 0.01;
const DRAWINGS = /^(([0-9a-z]{4})+(\.([0-9a-z]{4})+)*)?$/;

/** Writes drawings as text: thousandths in base 36, "." between strokes and "_" between drawings. */
export function encodeDrawings(drawings: readonly Drawing[]): string {
  const two = (value: number) =>
    Math.round(value * 1000)
      .toString(36)
      .padStart(2, "0");
  return drawings
    .map((drawing) => drawing.map((stroke) => thinned(stroke).map(two).join("")).join("."))
    .join("_");
}

/** Reads what `encodeDrawings` wrote, or returns null if the text is something else. */
export function decodeDrawings(text: string, count: number): Drawing[] | null {
  const parts = text.split("_");
  if (parts.length !== count || !parts.every((part) => DRAWINGS.test(part))) return null;
  const value = (digits: string) => Math.min(Number.parseInt(digits, 36) / 1000, 1);
  return parts.map((part) =>
    part === "" ? [] : part.split(".").map((stroke) => (stroke.match(/../g) ?? []).map(value)),
  );
}

function thinned(stroke: readonly number[]): number[] {
  const kept: number[] = [];
  for (let i = 0; i + 1 < stroke.length; i += 2) {
    const [x, y] = [stroke[i] as number, stroke[i + 1] as number];
    const away = Math.hypot(x - (kept.at(-2) ?? 2), y - (kept.at(-1) ?? 2));
    if (away >= NEAR || i + 2 === stroke.length) kept.push(x, y);
  }
  return kept;
}

/** Puts the state into the page's address and copies that. Returns a message for the visitor. */
export async function copyLink(state: Record<string, string>): Promise<string> {
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
  try {
    await navigator.clipboard.writeText(location.href);
    return "Link copied.";
  } catch {
    return "The link is in the address bar.";
  }
}

/** The state in the page's address. */
export function sharedState(): URLSearchParams {
  return new URLSearchParams(location.hash.slice(1));
}

/** Saves a PNG of what `paint` draws, on a ground of the page's colors. */
export function savePicture(
  name: string,
  width: number,
  height: number,
  paint: (context: CanvasRenderingContext2D, color: (variable: string) => string) => void,
): void {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  const style = getComputedStyle(document.documentElement);
  const color = (variable: string) => style.getPropertyValue(variable);
  context.fillStyle = color("--ground");
  context.fillRect(0, 0, width, height);
  context.textBaseline = "middle";
  paint(context, color);
  const link = document.createElement("a");
  link.download = name;
  link.href = canvas.toDataURL("image/png");
  link.click();
}

/** Sets the font of a picture's text, in pixels. */
export function font(size: number, weight = 400): string {
  return `${weight} ${size}px system-ui, sans-serif`;
}
