"use strict";

// Light or dark: the system's choice until the button is used.
{
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const show = () => {
    const dark = chosen ?? system.matches;
    document.documentElement.style.colorScheme = chosen === null ? "" : dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
  };
  button.addEventListener("click", () => {
    chosen = !(chosen ?? system.matches);
    show();
  });
  system.addEventListener("change", show);
  show();
}

function drawn(parent, name, attributes) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  parent.append(shape);
  return shape;
}

// Charts: the values at the pointer, or where the arrow keys have gone.
const charts = new Map();
for (const chart of document.querySelectorAll(".chart")) {
  charts.set(chart, JSON.parse(chart.dataset.chart));
  const { x: label, names, points } = charts.get(chart);
  const places = [...new Set(points.map((point) => point[1]))].sort((a, b) => a - b);
  const tip = document.getElementById("tip");
  const marks = drawn(chart, "g", {});
  let at = places.length - 1;

  const hide = () => {
    tip.hidden = true;
    marks.replaceChildren();
  };
  const show = (place) => {
    at = place;
    const here = points.filter((point) => point[1] === places[place]);
    marks.replaceChildren();
    for (const [, x, y] of here) drawn(marks, "circle", { cx: x, cy: y, r: 5, class: "here" });
    const lines = here.map(([line, , , , y, spread]) => {
      const name = names.length > 1 ? `${names[line]}: ` : "";
      return `${name}${y}${spread ? ` ± ${spread}` : ""}`;
    });
    tip.textContent = [`${label} ${here[0][3]}`, ...lines].join("\n");
    tip.hidden = false;
    const box = chart.getBoundingClientRect();
    const scale = box.width / chart.viewBox.baseVal.width;
    const left = box.left + here[0][1] * scale - tip.offsetWidth / 2;
    const widest = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const top = Math.min(...here.map((point) => point[2]));
    tip.style.left = `${scrollX + Math.max(8, Math.min(left, widest))}px`;
    tip.style.top = `${scrollY + box.top + top * scale - tip.offsetHeight - 12}px`;
  };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    let nearest = 0;
    for (let i = 1; i < places.length; i++)
      if (Math.abs(places[i] - x) < Math.abs(places[nearest] - x)) nearest = i;
    show(nearest);
  });
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("focus", () => chart.matches(":focus-visible") && show(at));
  chart.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1 };
    if (event.key === "Escape") hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(Math.max(0, Math.min(steps[event.key], places.length - 1)));
  });
}

// Where in the curves of its run a step of the images is.
function follow(run, step) {
  for (const chart of run.querySelectorAll(":scope > section .chart")) {
    const { x, scale: [low, high, left, right], between: [y1, y2] } = charts.get(chart);
    chart.querySelector(".now")?.remove();
    if (x !== "distillation step" || step < low || step > high) continue;
    const at = left + ((step - low) / (high - low)) * (right - left);
    drawn(chart, "line", { x1: at, x2: at, y1, y2, class: "now" });
  }
}

// Images: a canvas for each, drawn from the sheet of a step or from its Gaussians.
const DETAIL = 192; // pixels of a canvas with ellipses
const RECORD = 14; // bytes of a Gaussian, as gsdd_jax.page.outlines packs them
const [PER_SIDE, PER_PIXEL, PER_DEGREE] = [1 << 14, 1 << 6, 100];

function unpacked({ counts, records }) {
  const text = atob(records);
  const view = new DataView(Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer);
  const images = [];
  let next = 0;
  for (const count of counts) {
    const image = [];
    for (const end = next + count; next < end; next++) {
      const at = next * RECORD;
      image.push({
        x: view.getInt16(at, true) / PER_SIDE,
        y: view.getInt16(at + 2, true) / PER_SIDE,
        long: view.getUint16(at + 4, true) / PER_PIXEL,
        short: view.getUint16(at + 6, true) / PER_PIXEL,
        angle: (view.getInt16(at + 8, true) / PER_DEGREE / 180) * Math.PI,
        color: [10, 11, 12].map((byte) => view.getUint8(at + byte)).join(" "),
        alpha: view.getUint8(at + 13) / 255,
      });
    }
    images.push(image);
  }
  return images;
}

function drawEllipses(canvas, gaussians, width, height) {
  const scale = DETAIL / Math.max(width, height);
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const context = canvas.getContext("2d");
  context.lineWidth = 3;
  for (const { x, y, long, short, angle, color, alpha } of gaussians) {
    const seen = Math.max(alpha, 0.08); // the least visible is still seen
    context.beginPath();
    context.ellipse(
      x * canvas.width, y * canvas.height, long * scale, short * scale, angle, 0, 2 * Math.PI,
    );
    context.fillStyle = `rgb(${color} / ${0.4 * seen})`;
    context.strokeStyle = `rgb(${color} / ${seen})`;
    context.fill();
    context.stroke();
  }
}

function drawPixels(canvas, sheet, row, column, width, height, gap) {
  [canvas.width, canvas.height] = [width, height];
  const left = column * (width + gap);
  const top = row * (height + gap);
  canvas.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, width, height);
}

async function fill(gallery) {
  const data = JSON.parse(gallery.querySelector("script").textContent);
  const { width, height, gap, frames } = data;
  const sheets = [...gallery.querySelectorAll(".sheets img")];
  await Promise.all(sheets.map((sheet) => sheet.decode()));
  const slider = gallery.querySelector(".step");
  const output = gallery.querySelector("output");
  const all = gallery.querySelector(".all");
  const cards = [...gallery.querySelectorAll(".class")];
  const strips = cards.map((card) => card.querySelector(".made"));
  const names = cards.map((card) => card.querySelector("h3").textContent);

  const cell = (strip, label) => {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    canvas.title = label;
    strip.append(canvas);
    return canvas;
  };
  const show = () => {
    const at = slider ? Number(slider.value) : frames.length - 1;
    const frame = frames[at];
    const asEllipses = gallery.querySelector("input[type=radio]:checked")?.value === "ellipses";
    const pressed = all?.getAttribute("aria-pressed") === "true";
    const count = Math.min(frame.perClass, pressed ? Infinity : data.shown);
    if (asEllipses) frame.images ??= unpacked(frame.outlines);
    if (slider) {
      output.textContent = frame.step.toLocaleString("en");
      slider.setAttribute("aria-valuetext", `step ${frame.step}`);
      follow(gallery.parentElement, frame.step);
    }
    strips.forEach((strip, row) => {
      while (strip.children.length > count) strip.lastChild.remove();
      while (strip.children.length < count)
        cell(strip, `${names[row]}, image ${strip.children.length + 1}`);
      [...strip.children].forEach((canvas, column) => {
        canvas.classList.toggle("smooth", asEllipses);
        if (asEllipses) {
          const gaussians = frame.images[row * frame.perClass + column];
          drawEllipses(canvas, gaussians, width, height);
        } else drawPixels(canvas, sheets[at], row, column, width, height, gap);
      });
    });
  };
  cards.forEach((card, row) => {
    const strip = card.querySelector(".real");
    for (let column = 0; column < data.real; column++) {
      const canvas = cell(strip, `${names[row]}, real image ${column + 1}`);
      drawPixels(canvas, sheets.at(-1), row, column, width, height, gap);
    }
  });
  slider?.addEventListener("input", show);
  gallery.querySelectorAll("input[type=radio]").forEach((r) => r.addEventListener("change", show));
  all?.addEventListener("click", () => {
    all.setAttribute("aria-pressed", all.getAttribute("aria-pressed") !== "true");
    show();
  });
  show();
}

document.querySelectorAll(".gallery").forEach((gallery) => fill(gallery));
