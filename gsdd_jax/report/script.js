"use strict";
const all = (node, selector) => [...node.querySelectorAll(selector)];

// Light or dark: the system's choice until the button is used.
document.getElementById("theme").addEventListener("click", () => {
  const { style } = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  style.colorScheme = (style.colorScheme || system) === "dark" ? "light" : "dark";
});

// Where in the curves of a run a step of its images is.
function follow(run, step) {
  for (const line of all(run, ":scope > section .now")) {
    const [low, high, left, right] = line.dataset.axis.split(" ").map(Number);
    const at = left + ((step - low) / (high - low)) * (right - left);
    line.setAttribute("transform", `translate(${at < left || at > right ? -1e4 : at})`);
  }
}

// Images: a canvas for each, drawn from the sheet of a step or from its Gaussians.
function drawPixels(canvas, sheet, row, column, { width, height, gap }) {
  [canvas.width, canvas.height] = [width, height];
  const from = [column * (width + gap), row * (height + gap), width, height];
  canvas.getContext("2d").drawImage(sheet, ...from, 0, 0, width, height);
}

function drawEllipses(canvas, gaussians, index, { width, height }) {
  const { counts, records } = gaussians;
  const decoded = () => Uint8Array.from(atob(records), (letter) => letter.charCodeAt(0));
  gaussians.numbers ??= new Int16Array(decoded().buffer);
  const scale = 192 / Math.max(width, height);
  [canvas.width, canvas.height] = [width * scale, height * scale];
  canvas.classList.add("smooth");
  const context = canvas.getContext("2d");
  context.lineWidth = 3;
  let at = 9 * counts.slice(0, index).reduce((a, b) => a + b, 0);
  for (const end = at + 9 * counts[index]; at < end; at += 9) {
    // In the units of gallery.py.
    const [x, y, long, short, angle, ...shown] = gaussians.numbers.subarray(at, at + 9);
    const alpha = Math.max(shown.pop() / 255, 0.08); // the least visible is still seen
    context.beginPath();
    context.ellipse((x / 2 ** 14) * canvas.width, (y / 2 ** 14) * canvas.height,
      (long / 64) * scale, (short / 64) * scale, (angle / 18000) * Math.PI, 0, 2 * Math.PI);
    context.fillStyle = `rgb(${shown.join(" ")} / ${0.4 * alpha})`;
    context.strokeStyle = `rgb(${shown.join(" ")} / ${alpha})`;
    context.fill();
    context.stroke();
  }
}

async function fill(gallery) {
  const data = JSON.parse(gallery.querySelector("script").textContent);
  const sheets = all(gallery, ".sheets img");
  await Promise.all(sheets.map((sheet) => sheet.decode()));
  const [slider, ellipses, more] = [".step", ".ellipses", ".all"].map((s) => gallery.querySelector(s));
  const draw = (strips, count, kind, drawn) => strips.forEach((strip, row) => {
    strip.replaceChildren();
    for (let column = 0; column < count; column++) {
      const canvas = strip.appendChild(document.createElement("canvas"));
      canvas.title = `${strip.parentElement.firstChild.textContent}, ${kind} ${column + 1}`;
      canvas.role = "img";
      drawn(canvas, row, column);
    }
  });
  const show = () => {
    const at = slider ? Number(slider.value) : data.frames.length - 1;
    const { step, perClass, gaussians } = data.frames[at];
    if (slider) {
      gallery.querySelector("output").textContent = step.toLocaleString("en");
      slider.setAttribute("aria-valuetext", `step ${step}`);
      follow(gallery.parentElement, step);
    }
    const count = more?.checked ? perClass : Math.min(perClass, data.shown);
    draw(all(gallery, ".made"), count, "image", (canvas, row, column) => {
      if (ellipses?.checked) drawEllipses(canvas, gaussians, row * perClass + column, data);
      else drawPixels(canvas, sheets[at], row, column, data);
    });
  };
  draw(all(gallery, ".real"), data.real, "real image", (canvas, row, column) => {
    drawPixels(canvas, sheets.at(-1), row, column, data);
  });
  gallery.addEventListener("input", show);
  show();
}

all(document, ".gallery:has(script)").forEach(fill);
