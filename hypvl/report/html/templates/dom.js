"use strict";
// Elements are made here, and text goes in as text nodes only: nothing from the data is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Numbers: percents with one decimal, others with four significant digits, a real minus sign.
function number(value, unit = "", digits = 4) {
  if (value === null || value === undefined) return "–";
  let text;
  if (unit === "%") text = value.toFixed(1);
  else if (value === 0) text = "0";
  else if (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) text = value.toExponential(2);
  else text = String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}

// Radii and angles, where three digits are enough to see.
const short = (value) => number(value, "", 3);

const thousands = (value) => Math.round(value).toLocaleString("en").replace(/,/g, "\u202f");
const readable = (name) => name.replace(/_/g, " ");

// A section with a heading, an optional answer, and what follows.
function section(id, title, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), ...children);
}

function figure(title, body, note) {
  return h("figure", {}, title && h("h3", {}, title), body, note && h("figcaption", {}, note));
}

// The one tooltip of the page: an image with its caption, beside a point of the screen.
const tip = {
  show(x, y, ...children) {
    const box = document.getElementById("tip");
    box.replaceChildren(...children.filter(Boolean));
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
    box.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    box.style.top = `${Math.max(8, Math.min(y + 16, innerHeight - height - 8))}px`;
  },
  hide() {
    document.getElementById("tip").hidden = true;
  },
};

function picture(image, size) {
  return h("img", { src: image.thumbnail, alt: image.caption || image.key, width: size });
}

function legend(...entries) {
  return h("ul", { class: "legend" }, entries.map(([kind, label]) =>
    h("li", {}, s("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true", class: "key" }, mark(kind)), label)));
}

// Images are discs and texts are triangles, so that colour is never the only difference.
function mark(kind, size = 5) {
  if (kind === "text") {
    const a = size * 1.15;
    return s("path", { class: "mark text", d: `M0 ${-a}L${a} ${a * 0.8}L${-a} ${a * 0.8}Z` });
  }
  return s("circle", { class: `mark ${kind}`, r: size });
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) {
    values.push(Math.abs(value) < step * 1e-6 ? 0 : value);
  }
  return values;
}
