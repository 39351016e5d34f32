// Elements, and how what the gateway tells is written. Whatever comes from outside becomes text and never markup.

export const byId = (id) => document.getElementById(id);

/// An element of a class with children, each an element or text.
export function el(name, className = "", ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function button(text, className, onClick) {
  const element = el("button", className, text);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}

/// Makes `parent` hold one child for each item, in their order. A child stays the same element for as long as its item is
/// there, so that whoever is on one of its buttons stays there.
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
}

/// A table that is filled again and again. Each column has a `name`, and `text(item)` or `cell(item, td)`.
export function table(parent, columns, key, whenEmpty) {
  const head = el("tr");
  for (const column of columns) {
    const cell = el("th", column.className, column.name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = el("tbody");
  const whole = el("div", "scroll", el("table", "", el("thead", "", head), body));
  const empty = el("p", "empty", whenEmpty);
  parent.append(whole, empty);
  const make = () => el("tr", "", ...columns.map((column) => el("td", column.className)));
  const update = (row, item) => {
    columns.forEach((column, index) => {
      const cell = row.children[index];
      cell.dataset.name = column.name;
      if (column.cell) column.cell(item, cell);
      else setText(cell, column.text(item));
    });
  };
  return (items) => {
    whole.hidden = items.length === 0;
    empty.hidden = items.length > 0;
    keyed(body, items, key, make, update);
  };
}

const whole = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (number) => (number < 100000 ? whole.format(number) : compact.format(number));

/// Dollars to the cent, small amounts as far as they have digits that tell something.
export function usd(text) {
  if (text === null || text === undefined) return "unknown";
  const number = Number(text);
  const size = Math.abs(number);
  const digits = size === 0 || size >= 1 ? 2 : size >= 0.01 ? 4 : 6;
  const shown = size.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: digits });
  return `${number < 0 ? "-" : ""}$${shown}`;
}

/// An amount of a budget, `{"usd": "1.25"}` or `{"tokens": 1500}`.
export const amount = (value) => ("usd" in value ? usd(value.usd) : `${count(value.tokens)} tokens`);
export const amountNumber = (value) => ("usd" in value ? Number(value.usd) : value.tokens);

const time = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });

/// The time of an instant of today, day and time of another, by the reader's clock.
export function instant(text) {
  if (!text) return "never";
  const at = new Date(text);
  return at.toDateString() === new Date().toDateString() ? time.format(at) : day.format(at);
}

export function span(fromText, toText) {
  const seconds = Math.max(0, Math.round((new Date(toText) - new Date(fromText)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
