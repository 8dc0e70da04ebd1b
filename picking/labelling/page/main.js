// The page: what is open, what is shown of it, and what each button, key and push does.

import { Connection, getJson } from './connection.js';
import { Grid } from './grid.js';
import { listenToKeys } from './keys.js';
import { apply, countsOf, fromJson, newId, shown, stateOf } from './labels.js';
import { Learning } from './learning.js';
import { Overlay } from './overlay.js';
import { Strip } from './strip.js';
import { listen } from './tools.js';
import { Viewer } from './viewer.js';

// The token has become a cookie: it need not stay in the address, nor in the history
if (location.search) history.replaceState(null, '', '/');

const $ = (id) => document.getElementById(id);
const empty = { marks: new Map(), junk: [], complete: false, left_out: false };
const scene = { labels: empty, diameter: 1, visible: true, proposals: [] };
let session = null;
let open = null; // what the server says of the micrograph that is open
let confirmed = empty; // its labels as the server has them
let place = null; // of that micrograph
let wanted = null; // the place that was asked for last
let next = null;
let tool = 'pick';
let ends = { undo: null, redo: null };
let grid = null;

const viewer = new Viewer($('image'), () => overlay.draw(scene));
const overlay = new Overlay($('overlay'), viewer);
const strip = new Strip($('strip'), (chosen) => openMicrograph(chosen));
const connection = new Connection('labelling', {
  connected: refresh,
  pushed,
  answered: () => relabel(),
  refused: (why) => say(`Not done: ${why}`, 8000),
  learned: (state) => learning.update(state),
  status: (text) => { trouble = text; showBanner(); },
});

// What is open

async function refresh() {
  try {
    session = await getJson('/session');
  } catch (error) {
    say(error.message, 60_000);
    return;
  }
  ends = session;
  getJson('/learning').then((state) => learning.update(state), () => {});
  document.title = `${session.folder} – labelling`;
  strip.fill(session.micrographs);
  progress();
  showBanner();
  if (place === null && wanted === null) {
    const kept = session.micrographs.findIndex((row) => row.name === remembered());
    const first = kept >= 0 ? kept : (await getJson('/next').catch(() => null))?.micrograph ?? 0;
    await openMicrograph(first);
  } else {
    await openMicrograph(wanted ?? place, true);
  }
}

function remembered() {
  try {
    return sessionStorage.getItem('labelling open');
  } catch {
    return null;
  }
}

async function openMicrograph(chosen, isAgain = false) {
  const start = performance.now();
  wanted = chosen;
  strip.select(chosen);
  const row = session.micrographs[chosen];
  if (!isAgain) {
    // Whatever is clicked must be on what is seen: nothing of the last one stays
    [place, open, confirmed] = [chosen, null, empty];
    viewer.open(null);
    $('message').textContent = `Opening ${row.name} …`;
    $('name').textContent = row.name;
    relabel();
    learning.open(chosen);
  }
  try {
    const answer = await getJson(`/micrographs/${chosen}`);
    if (wanted !== chosen) return;
    const isOther = !open || open.stamp !== answer.stamp;
    [place, open, confirmed] = [chosen, answer, fromJson(answer.labels)];
    $('message').textContent = '';
    if (isOther) viewer.open(answer, session.tile_px);
    try {
      sessionStorage.setItem('labelling open', row.name);
    } catch {
      // no storage: a reload opens what is proposed
    }
  } catch (error) {
    if (wanted === chosen) $('message').textContent = error.message;
  }
  relabel();
  document.body.dataset.opened = String(chosen);
  delete document.body.dataset.shownMs;
  viewer.whenSharp = () => {
    document.body.dataset.shownMs = (performance.now() - start).toFixed(0);
  };
  await proposeNext();
}

async function proposeNext() {
  next = await getJson(`/next?after=${place}`).catch(() => null);
  $('next').disabled = !next;
  $('next-why').textContent = next ? `${next.name}: ${next.why}` : 'Nothing else is left to look at.';
}

// Labels

function relabel() {
  const pending = connection.pending.filter((a) => !a.micrograph || a.micrograph === openName());
  scene.labels = shown(confirmed, pending);
  scene.diameter = open?.diameter_px ?? 1;
  grid = null;
  learning.show();
  const state = stateOf(scene.labels);
  const { particles, negatives } = countsOf(scene.labels);
  $('state').textContent = state;
  $('state').dataset.state = state;
  $('counts').textContent = `${particles} particle${particles === 1 ? '' : 's'}`;
  $('n-particles').textContent = particles;
  $('n-negatives').textContent = negatives;
  $('complete').setAttribute('aria-pressed', String(scene.labels.complete));
  $('leave-out').setAttribute('aria-pressed', String(scene.labels.left_out));
  const n = connection.pending.length;
  $('saved').textContent = n ? `${n} not saved yet` : session?.used_by ? 'read-only' : 'saved';
  $('saved').classList.toggle('waiting', n > 0);
  const can = !isReadOnly();
  const undoable = lastPending() ?? ends.undo;
  $('undo').disabled = !can || !undoable;
  $('redo').disabled = !can || !ends.redo;
  for (const id of ['complete', 'leave-out', 'tool-junk', 'tool-erase']) $(id).disabled = !can;
  viewer.redraw(false);
}

function openName() {
  return session?.micrographs[place]?.name;
}

function isReadOnly() {
  return !session || Boolean(session.used_by);
}

function act(kind, content = {}) {
  if (isReadOnly() || !open) return;
  connection.send({ id: newId(), do: kind, micrograph: openName(), ...content });
}

/** The id of the last action that the server has not confirmed and that is not undone. */
function lastPending() {
  const undone = new Set(connection.pending.filter((a) => a.do === 'undo').map((a) => a.of));
  return connection.pending.filter((a) => a.micrograph && !undone.has(a.id)).pop()?.id ?? null;
}

function undo() {
  if ($('undo').disabled) return;
  connection.send({ id: newId(), do: 'undo', of: lastPending() });
}

function redo() {
  if (!$('redo').disabled) connection.send({ id: newId(), do: 'redo', of: null });
}

function pushed(message) {
  ends = message;
  const { event, micrograph, row } = message;
  if (row) {
    session.micrographs[micrograph] = row;
    strip.update(micrograph, row);
  }
  if (micrograph === place && open && message.n > open.n) {
    if (message.labels) {
      confirmed = fromJson(message.labels);
    } else {
      apply(confirmed, event);
    }
    open.n = message.n;
  }
  const isTurn = event.do === 'undo' || event.do === 'redo';
  if (isTurn && micrograph !== undefined && micrograph !== place && connection.sent.has(event.id)) {
    say(`${event.do === 'undo' ? 'Undone' : 'Done again'} on ${row.name}`, 5000);
    openMicrograph(micrograph);
  }
  relabel();
  progress();
}

// Words

function progress() {
  const rows = session.micrographs;
  const count = (state) => rows.filter((row) => row.state === state).length;
  const picks = rows.reduce((sum, row) => sum + row.picks, 0);
  const parts = [`${rows.length} micrographs`, `${picks} particles`];
  for (const state of ['complete', 'in part', 'left out']) {
    if (count(state)) parts.push(`${count(state)} ${state}`);
  }
  $('progress').textContent = parts.join(' · ');
}

let said = null; // for some seconds
let trouble = null; // with the line to the server, or with its disk
let saying = null;

function say(text, ms) {
  clearTimeout(saying);
  said = text;
  saying = setTimeout(() => { said = null; showBanner(); }, ms);
  showBanner();
}

function showBanner() {
  const who = session?.used_by;
  const readOnly = who
    ? `Read-only: the labels are in use by ${who}. What is done there shows here.` : null;
  const text = said ?? trouble ?? readOnly;
  $('banner').hidden = !text;
  $('banner').textContent = text ?? '';
}

// Tools and view

const HINTS = {
  pick: 'Click adds a particle, a click on one removes it, dragging moves it. Shift-click: no particle.',
  junk: 'Paint over carbon, ice and aggregates: nothing is learned or picked there.',
  erase: 'Paint over junk to take it away.',
};

function chooseTool(name) {
  tool = name;
  for (const one of Object.keys(HINTS)) {
    $(`tool-${one}`).setAttribute('aria-pressed', String(one === name));
  }
  $('tool-hint').textContent = HINTS[name];
  $('brush-row').hidden = name === 'pick';
  scene.hovered = null;
  scene.brush = name === 'pick' ? null : brush();
  viewer.redraw(false);
}

function brush() {
  return (Number($('brush').value) / 100) * scene.diameter;
}

function resizeBrush(factor) {
  $('brush').value = Number($('brush').value) * factor;
  chooseTool(tool);
}

function filterView() {
  const value = (id) => Number($(id).value);
  viewer.setFilter({
    contrast: value('contrast'),
    brightness: value('brightness'),
    smooth: value('smooth'),
    invert: $('invert').checked,
  });
  scene.visible = $('show-marks').checked;
}

function toggle(id) {
  $(id).checked = !$(id).checked;
  filterView();
}

function zoomMiddle(factor) {
  viewer.zoom(factor, viewer.canvas.clientWidth / 2, viewer.canvas.clientHeight / 2);
}

function step(by) {
  const other = strip.beside(place, by);
  if (other !== null) openMicrograph(other);
}

/** Offer to accept or reject the proposals in a box of the screen, or, with null, do not. */
function boxed(box) {
  $('box-menu').hidden = true;
  if (!box) return;
  const [left, right] = [box.x0, box.x1].sort((a, b) => a - b);
  const [top, bottom] = [box.y0, box.y1].sort((a, b) => a - b);
  const inside = scene.proposals.filter((proposal) => {
    const { x, y } = viewer.toScreen(proposal);
    return x >= left && x <= right && y >= top && y <= bottom;
  });
  if (!inside.length) return;
  for (const [id, kind, word] of [['box-accept', 'accept', 'Accept'], ['box-reject', 'reject', 'Reject']]) {
    $(id).textContent = `${word} ${inside.length}`;
    $(id).onclick = () => {
      learning.all(kind, inside);
      $('box-menu').hidden = true;
    };
  }
  $('box-menu').style.left = `${Math.min(left, viewer.canvas.clientWidth - 200)}px`;
  $('box-menu').style.top = `${Math.min(bottom + 4, viewer.canvas.clientHeight - 40)}px`;
  $('box-menu').hidden = false;
}

const commands = [
  [['z', 'Ctrl+z'], 'undo', undo],
  [['Shift+z', 'Ctrl+Shift+z', 'Ctrl+y'], 'redo', redo],
  [['n'], 'next micrograph that is worth a look', () => next && openMicrograph(next.micrograph)],
  [['ArrowLeft'], 'the one before in the strip', () => step(-1)],
  [['ArrowRight'], 'the one after in the strip', () => step(1)],
  [['c'], 'complete: every particle is marked; again: not', () =>
    act(scene.labels.complete ? 'not_complete' : 'complete')],
  [['x'], 'leave this micrograph out; again: take it back', () =>
    act(scene.labels.left_out ? 'take_back' : 'leave_out')],
  [['a'], 'accept all proposals on this micrograph', () => learning.all('accept')],
  [['p', 'Escape'], 'pick', () => chooseTool('pick')],
  [['b'], 'paint junk; with Alt held: erase', () => chooseTool('junk')],
  [['e'], 'erase junk', () => chooseTool('erase')],
  [['['], 'smaller brush', () => resizeBrush(0.8)],
  [[']'], 'larger brush', () => resizeBrush(1.25)],
  [['i'], 'invert', () => toggle('invert')],
  [['h'], 'hide or show marks', () => toggle('show-marks')],
  [['+', '='], 'zoom in', () => zoomMiddle(1.4)],
  [['-'], 'zoom out', () => zoomMiddle(1 / 1.4)],
  [['0'], 'the whole micrograph', () => open && viewer.fit()],
  [['?'], 'these keys', () => $('help').showModal()],
];
listenToKeys(commands, $('help-rows'));
const command = (key) => commands.find(([keys]) => keys.includes(key))[2];
for (const [id, key] of Object.entries({
  undo: 'z', redo: 'Shift+z', next: 'n', complete: 'c', 'leave-out': 'x', 'tool-pick': 'p',
  'tool-junk': 'b', 'tool-erase': 'e', 'zoom-in': '+', 'zoom-out': '-', 'zoom-fit': '0',
  'help-button': '?',
})) {
  $(id).addEventListener('click', command(key));
}
for (const id of ['contrast', 'brightness', 'smooth', 'invert', 'show-marks']) {
  $(id).addEventListener('input', filterView);
}
$('reset-view').addEventListener('click', () => {
  for (const [id, value] of [['contrast', 1], ['brightness', 1], ['smooth', 0]]) $(id).value = value;
  $('invert').checked = false;
  filterView();
  if (open) viewer.fit();
});
$('brush').addEventListener('input', () => chooseTool(tool));
$('filter').addEventListener('change', (event) => strip.setFilter(event.target.value));
window.addEventListener('beforeunload', (event) => {
  if (connection.pending.length) event.preventDefault();
});

const page = {
  viewer,
  scene,
  tool: () => tool,
  brush,
  isReadOnly,
  act,
  redraw: () => viewer.redraw(false),
  say,
  boxed,
  numbered: (numbers) => strip.setProposals(numbers),
  proposalAt: (y, x, reach) => learning.at(y, x, reach),
  grid: () => {
    grid ??= new Grid(scene.labels.marks, Math.max(scene.diameter, 7 / viewer.scale, 1));
    return grid;
  },
};
const learning = new Learning(page);
listen($('overlay'), page);
chooseTool('pick');
filterView();
connection.connect();
// For the console and for tests: where a place of the micrograph is in the window
globalThis.labelling = {
  act,
  toWindow: (y, x) => {
    const box = viewer.canvas.getBoundingClientRect();
    const point = viewer.toScreen({ y, x });
    return { x: box.left + point.x, y: box.top + point.y };
  },
  proposals: () => scene.proposals.map(({ y, x, score }) => [y, x, score]),
  marks: () => [...scene.labels.marks.values()].map(({ y, x, particle }) => [y, x, particle]),
};
