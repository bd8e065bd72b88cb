"use strict";
const all = (node, selector) => [...node.querySelectorAll(selector)];

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

function drawEllipses(canvas, { counts, numbers }, index, { width, height }) {
  const scale = 192 / Math.max(width, height);
  [canvas.width, canvas.height] = [width * scale, height * scale];
  canvas.className = "smooth";
  const context = Object.assign(canvas.getContext("2d"), { lineWidth: 3 });
  let at = 9 * counts.slice(0, index).reduce((sum, count) => sum + count, 0);
  for (const end = at + 9 * counts[index]; at < end; at += 9) {
    // In the units of gallery.py; the least visible is still seen.
    const [x, y, long, short, angle, red, green, blue, opacity] = numbers.subarray(at, at + 9);
    const alpha = Math.max(opacity / 255, 0.08);
    context.beginPath();
    context.ellipse((x / 16384) * canvas.width, (y / 16384) * canvas.height,
      (long / 64) * scale, (short / 64) * scale, (angle / 18000) * Math.PI, 0, 2 * Math.PI);
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${0.4 * alpha})`;
    context.fill();
    context.strokeStyle = `rgb(${red} ${green} ${blue} / ${alpha})`;
    context.stroke();
  }
}

function show(gallery) {
  const data = JSON.parse(gallery.querySelector("script").textContent);
  const sheets = all(gallery, ".sheets img");
  const [slider, ellipses, more] = [".step", ".ellipses", ".all"].map((s) => gallery.querySelector(s));
  for (const { gaussians } of data.frames.filter((frame) => frame.gaussians)) {
    const bytes = Uint8Array.from(atob(gaussians.records), (letter) => letter.charCodeAt(0));
    gaussians.numbers = new Int16Array(bytes.buffer);
  }
  const fill = (strips, count, kind, paint) => strips.forEach((strip, row) => {
    strip.replaceChildren(...Array.from({ length: count(row) }, (_, column) => {
      const canvas = document.createElement("canvas");
      canvas.title = `${strip.parentElement.firstChild.textContent}, ${kind} ${column + 1}`;
      canvas.role = "img";
      paint(canvas, row, column);
      return canvas;
    }));
  });
  const draw = () => {
    const at = slider ? Number(slider.value) : data.frames.length - 1;
    const { step, images, gaussians } = data.frames[at];
    if (slider) {
      gallery.querySelector("output").textContent = slider.ariaValueText = step.toLocaleString("en");
      follow(gallery.parentElement, step);
    }
    const count = (row) => more?.checked ? images[row] : Math.min(images[row], data.shown);
    const first = (row) => images.slice(0, row).reduce((sum, count) => sum + count, 0);
    fill(all(gallery, ".made"), count, "image", (canvas, row, column) => {
      if (ellipses?.checked) drawEllipses(canvas, gaussians, first(row) + column, data);
      else drawPixels(canvas, sheets[at], row, column, data);
    });
  };
  fill(all(gallery, ".real"), () => data.real, "real image", (canvas, row, column) =>
    drawPixels(canvas, sheets.at(-1), row, column, data));
  gallery.addEventListener("input", draw);
  draw();
}

addEventListener("load", () => all(document, ".gallery:has(script)").forEach(show));
